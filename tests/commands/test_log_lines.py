"""Lines of a command as JSON: progress, results, warnings, errors."""

import json
import logging
import signal
import warnings
from datetime import UTC, datetime

import pytest

from mlproject.commands import log_lines
from mlproject.commands.console import logged, print_message, progress, stopped_by_signals
from mlproject.errors import UserError


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


def test_each_line_is_an_object_with_time_level_message_and_what_is_known(capsys):
    with logged("json", "x"):
        print_message("two\nlines, ü")
        with progress("score") as [on_progress]:
            on_progress(3, 10)
        log_lines.write("away", "error", alias="models:/photos@champion")
        logging.getLogger("mlproject.lake").warning("%d commits", 10)
        warnings.warn("old", stacklevel=1)
    output, errors = capsys.readouterr()
    first, second = objects(output)
    assert ("info", "two\nlines, ü") == (first["level"], first["message"])
    age = datetime.now(UTC) - datetime.fromisoformat(first["time"])
    assert 0 <= age.total_seconds() < 60
    assert first["time"].endswith("Z")
    assert {"message": "score: 3 of 10", "step": "score", "done": 3, "total": 10}.items() <= (
        second.items()
    )
    fault, warning, old = objects(errors)
    assert ("error", "models:/photos@champion") == (fault["level"], fault["alias"])
    assert ("warning", "10 commits", "mlproject.lake") == (
        warning["level"],
        warning["message"],
        warning["logger"],
    )
    assert "old" in old["message"]


def test_the_error_that_ends_a_command_is_an_object_too(capsys):
    with pytest.raises(SystemExit) as ended, logged("json", "x"):
        raise UserError("No lake.")
    assert 2 == ended.value.code
    [fault] = objects(capsys.readouterr().err)
    assert ("error", "mlproject x: No lake.") == (fault["level"], fault["message"])


def test_so_is_the_line_of_a_signal(capfd):
    with logged("json", "x"), stopped_by_signals():
        signal.raise_signal(signal.SIGTERM)
    [line] = objects(capfd.readouterr().err)
    assert "Stopping after the current commit" in line["message"]


def test_text_is_the_message_alone_also_after_json(capsys):
    with logged("json", "x"):
        pass
    log_lines.write("done", step="score")
    assert "done\n" == capsys.readouterr().out
    assert [] == [
        one for one in logging.getLogger().handlers if isinstance(one, log_lines._Handler)
    ]


def test_a_line_stays_json_where_a_secret_was(capsys):
    with log_lines.written_as("json"):
        log_lines.write('password="a b" {\'token\': \'c\'} {"password": "d"} http://u:e@host')
    facts = json.loads(capsys.readouterr().out)
    assert (
        "password=*** {'token': '***'} {\"password\": \"***\"} http://***@host" == facts["message"]
    )

import re

import pytest

from mlproject.errors import MlprojectError
from mlproject.integrations import framework_process
from mlproject.versions import reference_results
from tests.support.versions import register_colours


def ask(version):
    with framework_process.process("", timeout_s=60) as call:
        return call(reference_results.fault, version.loaded_from)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("", ""),
        ("rows", "13 answers to 14 images"),
        ("columns", "the answers have no score"),
    ],
)
def test_a_version_that_is_none_of_ours_is_judged_by_what_holds_for_all(store, fault, words):
    assert words in ask(register_colours("golden", fault=fault))


def test_a_version_that_cannot_be_loaded_is_told(store):
    version = register_colours("broken")
    (code,) = store.rglob(f"{version.model_id}/**/colour_model.py")
    code.write_text("raise RuntimeError('no such luck')")
    assert re.match("it does not run: .*no such luck", ask(version))


def test_a_process_that_does_not_answer_in_time_is_ended():
    with (
        pytest.raises(MlprojectError, match="no answer in"),
        framework_process.process("", timeout_s=0.1) as call,
    ):
        call(sum, [1])

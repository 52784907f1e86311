import os
import stat

import pytest

from mlproject.errors import UserError
from mlproject.storage.local_files import output_to, write_whole
from mlproject.training import labelled_images


def test_a_file_is_written_whole_with_the_rights_that_its_user_gives(tmp_path):
    before = os.umask(0o077)
    try:
        write_whole(tmp_path / "report.html", "old")
        write_whole(tmp_path / "report.html", "new")
        write_whole(tmp_path / "java", "#!/bin/sh", executable=True)
    finally:
        os.umask(before)
    assert "new" == (tmp_path / "report.html").read_text()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("report.html", "java")]
    assert [0o600, 0o755] == modes
    assert 2 == len(list(tmp_path.iterdir()))


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", "text")
    assert b"text" == os.read(reader, 100)
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_output_of_native_code_goes_to_the_file_until_the_block_ends(tmp_path, capfd):
    with output_to(tmp_path / "log"):
        os.system("echo aside; echo aside >&2")  # noqa: S605
    os.system("echo here")  # noqa: S605
    assert "aside\naside\n" == (tmp_path / "log").read_text()
    assert ("here\n", "") == capfd.readouterr()


def test_missing_disk_space_is_reported_before_the_file_is_written(tmp_path):
    with pytest.raises(UserError, match="export TMPDIR"):
        labelled_images._reserved(tmp_path / "pixels", 10**18)

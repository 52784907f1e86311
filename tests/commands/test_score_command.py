"""The command `score` in a process of its own: exit codes and all that it prints on stderr."""

from pathlib import Path

import pytest

from tests.conftest import photo
from tests.support.commands import errors_of_process
from tests.support.lakes import add_image, day, pending, predicted_by
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark

IMAGES = 3


@pytest.fixture
def filled(lake):
    """A lake with red photos, written without Spark: the command's session is the only one."""
    for number in range(IMAGES):
        add_image(lake, f"/red/{number}.jpg", photo((200, 30, 30), number), day(1))
    return lake


def errors_of_score(lake, version, cwd, code):
    """All lines of stderr; the images of the lake are pending, as before."""
    words = ("--model", version.uri, "--lake", lake)
    lines = errors_of_process("score", *words, cwd=cwd, code=code)
    assert (IMAGES, set()) == (len(pending(lake, version)), predicted_by(lake, version))
    assert [] == list(Path(lake, "predictions").rglob("*.parquet"))
    # The first session on a machine saves its classes; `make test` has done that before.
    return [line for line in lines if not line.startswith("Saving Spark's classes")]


def test_a_version_that_raises_on_every_image_is_refused_in_one_line_with_exit_code_3(
    store, filled, tmp_path
):
    version = register_colours("raising", fault="always")
    [line] = errors_of_score(filled, version, tmp_path, code=3)
    assert line == (
        f"mlproject score: {version.uri} cannot score: it predicts no image of its first "
        f"micro-batch ({IMAGES} model_failed): ValueError: no photos, please"
    )


def test_a_fault_of_the_machine_is_one_line_that_says_what_to_do_with_exit_code_1(
    store, filled, tmp_path
):
    version = register_colours("on_broken_disk", fault="disk")
    [line] = errors_of_score(filled, version, tmp_path, code=1)
    assert line == (
        f"mlproject score: {version.uri} was not scored, as the machine failed: 2 times "
        "OSError: [Errno 5] Input/output error. What was committed stays. Run the command again"
    )

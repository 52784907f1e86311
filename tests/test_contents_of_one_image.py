import pytest

from mlproject import contents
from mlproject.errors import UserError
from tests.conftest import photo
from tests.lakes_for_tests import add, day, hold

RED, GREEN = (photo(colour) for colour in ((200, 9, 9), (9, 200, 9)))


def test_the_bytes_of_a_reference_come_from_a_file_that_still_has_them(lake, tmp_path):
    here, there = tmp_path / "here.jpg", tmp_path / "there.jpg"
    for file in (here, there):
        file.write_bytes(RED)
        image_id = hold(lake, str(file), RED, day(1), inline=False)
    assert (RED, "") == contents.of_image(lake, image_id)
    here.write_bytes(GREEN)
    assert (RED, "") == contents.of_image(lake, image_id)
    there.unlink()
    assert (None, "changed") == contents.of_image(lake, image_id)
    here.unlink()
    assert (None, "gone") == contents.of_image(lake, image_id)


def test_bytes_in_the_table_go_before_those_of_files(lake, tmp_path):
    (tmp_path / "a.jpg").write_bytes(RED)
    hold(lake, "/gone.jpg", RED, day(1))
    image_id = hold(lake, str(tmp_path / "a.jpg"), RED, day(2), inline=False)
    (tmp_path / "a.jpg").unlink()
    assert (RED, "") == contents.of_image(lake, image_id)


def test_bytes_that_are_not_those_of_the_image_id_are_refused(lake):
    row = {"path": "/a.jpg", "image_id": "1" * 64, "content": b"other", "ingested_at": day(1)}
    add(lake, "images", row)
    with pytest.raises(UserError, match="others"):
        contents.of_image(lake, "1" * 64)

"""The bytes of several images at once, without Spark."""

from pathlib import Path

from mlproject.images import referenced_files, row_groups, stored_images
from mlproject.lake import snapshots
from tests.conftest import photo
from tests.support.lakes import add, add_image, day

PHOTOS = [photo((200, 9, 9), seed) for seed in range(12)]


def lengths(lake, image_ids):
    images = snapshots.required(lake, "images")
    return stored_images.each(images, stored_images.rows(images, image_ids), len)


def test_images_come_from_the_table_and_references_from_any_file_that_has_their_bytes(
    lake, tmp_path
):
    inline = add_image(lake, "/inline.jpg", PHOTOS[0], day(1))
    both = add_image(lake, str(tmp_path / "gone.jpg"), PHOTOS[1], day(2), inline=False)
    add_image(lake, "/copy.jpg", PHOTOS[1], day(3))
    for name, at in (("old", 4), ("moved", 5)):
        moved = add_image(lake, str(tmp_path / f"{name}.jpg"), PHOTOS[2], day(at), inline=False)
    (tmp_path / "old.jpg").write_bytes(PHOTOS[2])
    gone = add_image(lake, str(tmp_path / "nowhere.jpg"), PHOTOS[3], day(6), inline=False)
    changed = add_image(lake, str(tmp_path / "changed.jpg"), PHOTOS[4], day(6), inline=False)
    (tmp_path / "changed.jpg").write_bytes(PHOTOS[5])
    unasked = add_image(lake, "/unasked.jpg", PHOTOS[6], day(6))
    asked = [inline, both, moved, gone, changed, "0" * 64]
    found = {inline: len(PHOTOS[0]), both: len(PHOTOS[1]), moved: len(PHOTOS[2])}
    assert found == lengths(lake, asked)
    assert unasked not in found
    assert {} == lengths(lake, [])


def test_only_the_data_files_of_the_commits_that_hold_the_images_are_read(lake, monkeypatch):
    ids = [add_image(lake, f"/{n}.jpg", one, day(1 + n)) for n, one in enumerate(PHOTOS)]
    opened, rows = [], row_groups.rows

    def noted(table, name, wanted):
        opened.append(name)
        return rows(table, name, wanted)

    monkeypatch.setattr(row_groups, "rows", noted)
    assert {ids[2], ids[7]} == lengths(lake, [ids[2], ids[7]]).keys()
    assert 2 == len(set(opened)) == len(opened)
    snapshots.open_table(f"{lake}/images").optimize.compact()
    assert {ids[2], ids[7]} == lengths(lake, [ids[2], ids[7]]).keys()


def test_files_that_an_erasure_removes_meanwhile_are_left_out(lake):
    ids = [add_image(lake, f"/{n}.jpg", PHOTOS[n], day(1 + n)) for n in range(2)]
    images = snapshots.required(lake, "images")
    rows = stored_images.rows(images, ids)
    file, *_ = snapshots.active_files(snapshots.open_table(images.path))
    Path(images.path, file.path).unlink()
    assert 1 == len(stored_images.each(images, rows, len))


def test_images_with_an_error_are_not_looked_for_in_files(lake, tmp_path, monkeypatch):
    file = tmp_path / "huge.jpg"
    file.write_bytes(b"huge")
    row = {"path": str(file), "image_id": "1" * 64, "error": "too_many_bytes"}
    add(lake, "images", {**row, "ingested_at": day(1)})
    monkeypatch.setattr(referenced_files, "hashed", None)
    assert {} == lengths(lake, ["1" * 64])

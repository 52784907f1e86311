"""What is known of listed files is looked up by path, for some of them at a time."""

from datetime import timedelta

import pyarrow as pa
import pytest

from mlproject.ingestion import known_files, new_images
from mlproject.ingestion.source_listing import LEFT, LISTED, Listing
from tests.support.lakes import add, add_images, day, image_id

NAMES = ("-.jpg", "000.jpg", "001.jpg", "002.jpg", "003.jpg", "Z.jpg", "é.jpg", "模.jpg", "🖼.jpg")


def listing(*names, root="/photos", at=None):
    files = [
        {"path": f"{root}/{name}", "size_bytes": 1000, "modified_at": at or day(1)}
        for name in sorted(names)
    ]
    return Listing(root, pa.Table.from_pylist(files, LISTED), LEFT.empty_table(), root)


def add_files(lake, *paths, at=1.0):
    facts = {"size_bytes": 1000, "modified_at": day(1), "ingested_at": day(at)}
    rows = [{"path": path, "image_id": image_id(ord(path[-5])), **facts} for path in paths]
    add(lake, "images", *rows)


@pytest.mark.parametrize("files", [1, 2, 4, 100])
def test_files_are_pending_by_their_own_paths_however_many_are_compared_at_once(
    lake, files, monkeypatch
):
    monkeypatch.setattr(known_files, "PART_FILES", files)
    listed = listing(*NAMES)
    assert NAMES == tuple(path.split("/")[-1] for path in listed.files["path"].to_pylist())
    assert len(NAMES) == known_files.pending(lake, listed).num_rows
    for name in NAMES[::2]:
        add_files(lake, f"/photos/{name}")
    todo = known_files.pending(lake, listed)
    assert [f"/photos/{name}" for name in NAMES[1::2]] == todo["path"].to_pylist()
    assert len(NAMES[1::2]) == todo["known"].null_count
    add_files(lake, *(f"/photos/{name}" for name in NAMES[1::2]))
    assert 0 == known_files.pending(lake, listed).num_rows
    changed = known_files.pending(lake, listing(*NAMES, at=day(2)))
    ids = [[image_id(ord(name[-5]))] for name in NAMES]
    assert ids == changed["known"].to_pylist()


def test_an_empty_listing_has_nothing_pending(lake):
    add_images(lake, range(3))
    assert [*LISTED.names, "known"] == known_files.pending(lake, listing()).column_names


def test_what_was_seen_last_at_a_path_counts_in_each_part(lake, monkeypatch):
    monkeypatch.setattr(known_files, "PART_FILES", 2)
    add_files(lake, *(f"/photos/{name}" for name in NAMES))
    gone = {"image_id": image_id(1), "size_bytes": None, "modified_at": None, "at": day(2)}
    for name in NAMES[3:5]:
        add(lake, "files", {"path": f"/photos/{name}", "state": known_files.GONE, **gone})
    todo = known_files.pending(lake, listing(*NAMES))["path"].to_pylist()
    assert [f"/photos/{name}" for name in NAMES[3:5]] == todo


def test_of_the_known_files_those_of_other_sources_are_not_missing(lake, tmp_path):
    root = str(tmp_path / "photos")
    (tmp_path / "photos").mkdir()
    beside = [f"{root}0", f"{root}0/1.jpg", f"{root}.jpg", f"{tmp_path}/1.jpg"]
    add_files(lake, *(f"{root}/{name}" for name in NAMES), *beside)
    assert len(NAMES) == new_images.mark_missing(lake, listing(root=root))
    later = day(1) + timedelta(hours=1)
    assert 0 == new_images.mark_missing(lake, listing(root=root, at=later))

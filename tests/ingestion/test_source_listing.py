import os
import time
from urllib.parse import quote

import pytest

from mlproject.errors import UserError
from mlproject.ingestion import source_listing
from mlproject.storage import object_storage


def names(folder, **options) -> list[str]:
    listed = source_listing.listing(str(folder), **options)
    return [path.removeprefix(f"{folder}/") for path in listed.files["path"].to_pylist()]


def fill(folder, *paths) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def test_a_file_has_the_label_of_its_folder_and_none_at_the_root(tmp_path):
    fill(tmp_path, "a.jpg", "cat/b.jpg", "pets/dog/c.jpg")
    listed = source_listing.listing(str(tmp_path))
    assert [None, "cat", "dog"] == listed.files["label"].to_pylist()
    assert [1, 1, 1] == listed.files["size_bytes"].to_pylist()


def test_empty_hidden_and_other_files_are_left_and_counted(tmp_path):
    fill(tmp_path, "a.jpg", ".a.jpg", "_a.jpg", ".git/a.jpg", "_x/a.jpg", "a.txt", "jpg")
    (tmp_path / "empty.jpg").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    assert ["a.jpg"] == names(tmp_path)
    assert {"empty": 1, "skipped": 7} == source_listing.listing(str(tmp_path)).left_counts()


def test_a_file_on_its_way_waits_and_one_that_lies_still_does_not(tmp_path):
    fill(tmp_path, "new.jpg", "old.jpg", "future.jpg", "soon.jpg", "copy.jpg.part", "copy.tmp")
    now = time.time()
    os.utime(tmp_path / "old.jpg", (now - 60, now - 60))
    os.utime(tmp_path / "future.jpg", (now + 3600, now + 3600))
    os.utime(tmp_path / "soon.jpg", (now + 10, now + 10))  # as if written after the listing began
    assert ["future.jpg", "old.jpg"] == names(tmp_path, settle=30)
    assert {"settling": 4} == source_listing.listing(str(tmp_path), settle=30).left_counts()
    assert ["future.jpg", "new.jpg", "old.jpg", "soon.jpg"] == names(tmp_path)


def test_links_are_followed_inside_the_source_and_counted_where_they_leave_loop_or_dangle(tmp_path):
    source = tmp_path / "source"
    fill(source, "cat/a.jpg", "dog/b.jpg")
    fill(tmp_path, "outside/c.jpg", "source-not/d.jpg")
    (source / "alias.jpg").symlink_to(source / "cat" / "a.jpg")
    (source / "cats").symlink_to(source / "cat")
    assert ["alias.jpg", "cat/a.jpg", "cats/a.jpg", "dog/b.jpg"] == names(source)
    (source / "leaves.jpg").symlink_to(tmp_path / "outside" / "c.jpg")
    (source / "leaves").symlink_to(tmp_path / "outside")
    (source / "neighbour").symlink_to(tmp_path / "source-not")
    (source / "dangles.jpg").symlink_to(source / "nowhere.jpg")
    (source / "itself.jpg").symlink_to(source / "itself.jpg")
    (source / "cat" / "root").symlink_to(source)
    (source / "cat" / "dogs").symlink_to(source / "dog")
    (source / "dog" / "cats").symlink_to(source / "cat")
    listed = source_listing.listing(str(source))
    found = [path.removeprefix(f"{source}/") for path in listed.files["path"].to_pylist()]
    direct = {"alias.jpg", "cat/a.jpg", "cats/a.jpg", "dog/b.jpg"}
    assert sorted(direct | {"cat/dogs/b.jpg", "dog/cats/a.jpg"}) == found  # no loop was gone round
    # `root` and `dogs` below `cats`, `cats` below `cat/dogs`, and `dogs` and `root` below
    # `dog/cats`: from there no link is followed to a folder.
    assert listed.left_counts()["link"] == 6 + 5


def test_folders_that_all_link_to_each_other_are_listed_in_no_time(tmp_path):
    folders = [tmp_path / f"{number}" for number in range(10)]
    for folder in folders:
        fill(folder, "a.jpg")
        for other in folders:
            if other != folder:
                (folder / f"to-{other.name}").symlink_to(other)
    listed = source_listing.listing(str(tmp_path))
    assert listed.files.num_rows == 10 + 10 * 9  # each real folder, and each link from one
    assert listed.left_counts() == {"link": 10 * 9 * 9}


def test_hidden_is_what_spark_hides_and_a_partition_folder_is_not(tmp_path):
    fill(tmp_path, "_x=1/a.jpg", "_x/b.jpg", ".x=1/c.jpg", "d.jpg._COPYING_")
    assert names(tmp_path) == ["_x=1/a.jpg"]
    assert source_listing.listing(str(tmp_path)).left_counts() == {"skipped": 2, "settling": 1}


@pytest.mark.skipif(os.sep != "/", reason="names of bytes are Unix's")
def test_a_name_that_is_not_utf_8_is_counted_and_the_others_are_listed(tmp_path):
    fill(tmp_path, "a.jpg")
    for path in (b"b\xff.jpg", b"\xfe/c.jpg"):
        whole = os.path.join(os.fsencode(tmp_path), path)  # noqa: PTH118 - pathlib takes no bytes
        os.makedirs(os.path.dirname(whole), exist_ok=True)  # noqa: PTH103, PTH120
        with open(whole, "wb") as file:  # noqa: PTH123
            file.write(b"x")
    assert ["a.jpg"] == names(tmp_path)
    assert {"name": 2} == source_listing.listing(str(tmp_path)).left_counts()


def test_both_unicode_forms_of_a_name_are_two_files(tmp_path):
    fill(tmp_path, "gr\u00fc\u00df.jpg", "gru\u0308\u00df.jpg", "x" * 251 + ".jpg")
    assert 3 == len(names(tmp_path))


def test_a_source_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        source_listing.listing(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("source", ["nosuch://bucket/x", "http://example.org/x"])
def test_a_file_system_that_pyarrow_has_not_is_refused(source):
    with pytest.raises(UserError, match="cannot be opened"):
        source_listing.listing(source)


def test_a_path_without_read_permission_is_not_missing(tmp_path):
    fill(tmp_path, "a.jpg")
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "x" * 300 + ".jpg")]
    assert [False, True, False] == object_storage.missing_files(str(tmp_path), paths)


def test_a_source_is_a_path_or_a_uri_of_the_scheme_file(tmp_path):
    fill(tmp_path, "a b/%41.jpg")
    for scheme in ("file://", "file:", "file://localhost"):
        source = scheme + quote(str(tmp_path / "a b"))
        assert [str(tmp_path / "a b/%41.jpg")] == source_listing.listing(source).files[
            "path"
        ].to_pylist()


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        ("*.jpg", ["A.JPG", "b.jpg", "raw/x/d.jpg"]),
        (".jpg", ["A.JPG", "b.jpg", "raw/x/d.jpg"]),
        ("png jpg", ["A.JPG", "b.jpg", "raw/c.png", "raw/x/d.jpg"]),
        ("*.png *.gif", ["e f/g.gif", "raw/c.png"]),
        ("jpg,*.gif", ["A.JPG", "b.jpg", "e f/g.gif", "raw/x/d.jpg"]),
        ("**/raw/*.png", ["raw/c.png"]),
        ("raw/", ["raw/c.png", "raw/x/d.jpg"]),
        ("e f/*.gif", ["e f/g.gif"]),
        ("[ab].jpg", ["A.JPG", "b.jpg"]),
        ("#h.tar.gz", ["#h.tar.gz"]),
        ("tar.gz", ["#h.tar.gz"]),
        ("*", ["#h.tar.gz", "A.JPG", "b.jpg", "e f/g.gif", "j", "raw/c.png", "raw/x/d.jpg"]),
    ],
)
def test_files_are_chosen_by_suffixes_and_patterns(tmp_path, include, expected):
    fill(tmp_path, "A.JPG", "b.jpg", "raw/c.png", "raw/x/d.jpg", "e f/g.gif", "#h.tar.gz", "j")
    assert expected == sorted(names(tmp_path, include=include))
    every = names(tmp_path, include="*")
    assert sorted({*every} - {*expected}) == sorted(names(tmp_path, include="*", exclude=include))


def test_the_word_none_excludes_nothing(tmp_path):
    fill(tmp_path, "a.jpg", "b.none")
    assert ["a.jpg", "b.none"] == names(tmp_path, include="*", exclude="none")


def test_what_is_no_pattern_is_one_line(tmp_path):
    for option, word in (("include", "!*.jpg"), ("exclude", "a,\\")):
        with pytest.raises(UserError, match=f"{option}="):
            source_listing.listing(str(tmp_path), **{"include": "*", option: word})


def test_what_systems_leave_behind_is_left_and_counted(tmp_path):
    folders = ("@eaDir/1.jpg", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX", ".Trashes")
    folders += (".thumbnails", "System Volume Information", "My Previews.lrdata")
    fill(tmp_path, "a.jpg", "x/b.jpg", "Thumbs.db", *(f"x/{name}/1.jpg" for name in folders))
    assert ["a.jpg", "x/b.jpg"] == names(tmp_path, include="*")
    listed = source_listing.listing(str(tmp_path), "*")
    assert {"system": len(folders) + 1} == listed.left_counts()
    # A folder that a person names is listed.
    assert 1 == source_listing.listing(str(tmp_path / "x/@eaDir")).files.num_rows


def test_tables_and_what_mlflow_writes_are_left(tmp_path):
    fill(tmp_path, "a.jpg", "lake/images/_delta_log/0.json", "lake/images/x=1/part.parquet")
    fill(tmp_path, "mlruns/0/1/artifacts/plot.png", "my.db", "my.db-wal", "other/2.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "other")
    outputs = {f"{tmp_path}/{name}" for name in ("my.db", "my.db-wal", "other")}
    assert ["a.jpg"] == names(tmp_path, include="*", outputs=outputs)
    listed = source_listing.listing(str(tmp_path), "*", outputs=outputs)
    assert {"output": 6} == listed.left_counts()
    assert {"output": 1} == source_listing.listing(str(tmp_path / "lake/images"), "*").left_counts()

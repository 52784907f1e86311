"""Tables of labels as people have them: paths in any spelling, several separators, encodings."""

import unicodedata

import pytest

from mlproject.errors import UserError
from mlproject.ingestion import label_tables, source_listing
from tests.support.lakes import add_images

GREEN = "gr\u00fcn"  # one character; in the other form "u" and its dots are two


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "data" / "photos"
    for name in ("daisy/1.jpg", "daisy/2 a.jpg", f"{GREEN}/1.jpg", "%41/1.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def read(source, content, lake="/nowhere", name="labels.csv"):
    file = source.parent / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = label_tables.read(str(file), source_listing.listing(str(source)), lake).to_pylist()
    [key] = {key for row in rows for key in row if key != "label"}
    return {row[key] and row[key].removeprefix(f"{source}/"): row["label"] for row in rows}


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("daisy/1.jpg", "daisy/1.jpg"),
        ("./daisy/1.jpg", "daisy/1.jpg"),
        ("daisy//1.jpg", "daisy/1.jpg"),
        ("daisy\\1.jpg", "daisy/1.jpg"),
        (".\\daisy\\1.jpg", "daisy/1.jpg"),
        ("photos/daisy/1.jpg", "daisy/1.jpg"),
        ("data/photos/daisy/1.jpg", "daisy/1.jpg"),
        ("photos\\daisy\\1.jpg", "daisy/1.jpg"),
        ("daisy/2%20a.jpg", "daisy/2 a.jpg"),
        (f"{unicodedata.normalize('NFD', GREEN)}/1.jpg", f"{GREEN}/1.jpg"),
        ("gr%C3%BCn/1.jpg", f"{GREEN}/1.jpg"),
        ("%41/1.jpg", "%41/1.jpg"),
        ("%2541/1.jpg", "%41/1.jpg"),
    ],
)
def test_a_path_is_found_however_it_is_written(source, written, path):
    assert {path: "flower"} == read(source, f"path,label\n{written},flower\n")


def test_a_uri_is_found_in_other_spellings(tmp_path):
    files = source_listing.LISTED.empty_table().to_pylist()
    files += [{"path": "s3://b/k/1 a.jpg"}]
    table = source_listing.pa.Table.from_pylist(files, source_listing.LISTED)
    listed = source_listing.Listing(
        "s3://b/k", table, source_listing.LEFT.empty_table(), "s3://b/k"
    )
    for written in ("s3a://b/k/1 a.jpg", "S3://b/k/1%20a.jpg", "1 a.jpg", "k/1 a.jpg"):
        (tmp_path / "labels.csv").write_text(f"path,label\n{written},red\n")
        found = label_tables.read(str(tmp_path / "labels.csv"), listed, "/nowhere")
        assert ["s3://b/k/1 a.jpg"] == found["path"].to_pylist(), written


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", "file_name,label\ndaisy/1.jpg,röt\n"),
        ("labels.csv", "File_Name;Label\ndaisy/1.jpg;röt\n"),
        ("labels.tsv", "label\tpath\nröt\tdaisy/1.jpg\n"),
        ("labels.txt", 'path,"label"\r\n"daisy/1.jpg","röt"\r\n'),
        ("labels.csv", "\ufeffpath,label\ndaisy/1.jpg,röt\n"),
        ("labels.csv", "path\tlabel\ndaisy/1.jpg\tröt\n".encode("utf-16")),
        ("LABELS.CSV", "number;path;label\n1;daisy/1.jpg;röt\n"),
    ],
)
def test_a_table_is_read_with_its_separator_columns_and_encoding(source, name, content):
    assert {"daisy/1.jpg": "röt"} == read(source, content, name=name)


def test_two_spellings_of_a_path_with_two_labels_are_an_error(source):
    with pytest.raises(UserError, match="has two labels for path"):
        read(source, "path,label\ndaisy/1.jpg,a\n./daisy/1.jpg,b\n")


def test_labels_that_match_nothing_are_refused_with_an_example_of_both(source, lake):
    with pytest.raises(UserError) as raised:
        read(source, "path,label\nrose/1.jpg,rose\nrose/2.jpg,rose\n", lake)
    assert "none of its 2 paths is that of an image. It has 'rose/1.jpg'" in str(raised.value)
    assert f"the source has '{source}/%41/1.jpg'" in str(raised.value)


def test_labels_of_other_images_of_the_lake_are_no_error(source, lake):
    add_images(lake, range(2))
    given = "path,label\n/photos/001.jpg,red\n"
    assert {"/photos/001.jpg": "red"} == read(source, given, lake)
    assert "" == label_tables.unmatched(lake, label_tables.pa.table({"path": ["/photos/001.jpg"]}))


def test_labels_that_match_no_image_are_counted_with_three_examples(lake):
    add_images(lake, range(2))
    paths = [f"/photos/{number:03}.jpg" for number in range(7)]
    told = label_tables.unmatched(lake, label_tables.pa.table({"path": paths}))
    assert "5 of 7 labels match no image, for example " in told
    assert [path in told.partition(";")[0] for path in paths] == [
        False,
        False,
        *[True] * 3,
        False,
        False,
    ]

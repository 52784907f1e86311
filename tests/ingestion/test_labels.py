import shutil
import signal

import pytest

import mlproject
from mlproject.errors import UserError
from mlproject.ingestion import label_tables, labels, new_images, source_listing
from mlproject.lake import snapshots
from mlproject.lake.queries import query
from tests.conftest import photos
from tests.support.kills import killed_at_write

pytestmark = pytest.mark.spark


@pytest.fixture
def source(tmp_path):
    return photos(tmp_path / "source", 3, "red")


def ingest(spark, lake, source, given=None):
    return new_images.ingest_pending(spark, lake, source_listing.listing(str(source)), given=given)


def read(word, source, lake="/nowhere"):
    return label_tables.read(word, source_listing.listing(str(source)), lake)


def label_of(spark, lake):
    rows = snapshots.rows(spark, lake, "images").collect()
    return {row.path.rsplit("/", 1)[1]: row.label for row in rows}


def table(tmp_path, *lines):
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(tmp_path / "labels.csv")


def test_a_pattern_finds_labels_in_the_paths_below_the_source(source):
    listed = source_listing.listing(str(source))
    assert ["0", "1", "2"] == labels.from_paths(listed, r"red/00(\d)").files["label"].to_pylist()
    named = labels.from_paths(listed, r"(re)d/(?P<label>00[01])").files["label"].to_pylist()
    assert ["000", "001", None] == named
    assert listed is labels.from_paths(listed, "folder")


@pytest.mark.parametrize("names", ["path,label,label", "path,path,label", "path,image_id,label"])
def test_duplicate_columns_are_an_error(tmp_path, names):
    with pytest.raises(UserError, match="It needs label, and either path or image_id"):
        read(table(tmp_path, names, "a.jpg,b,c"), tmp_path)


@pytest.mark.parametrize(
    ("word", "expected"), [("(", "nor a regular expression"), ("a", "a group")]
)
def test_an_option_that_is_neither_file_nor_pattern_is_an_error(word, expected):
    with pytest.raises(UserError, match=expected):
        labels.pattern(word)


def newest_label_of(spark, lake):
    images = snapshots.rows(spark, lake, "images").drop("content", "thumbnail")
    rows = labels.with_newest(images, snapshots.rows(spark, lake, "labels")).collect()
    return {row.path.rsplit("/", 1)[1]: row.label for row in rows}


def test_a_csv_gives_labels_by_path_and_the_others_keep_theirs(spark, lake, source, tmp_path):
    word = table(tmp_path, "path,label", "red/000.jpg,rose", f"{source}/red/001.jpg,")
    assert labels.is_table(word)
    ingest(spark, lake, source, read(word, source, lake))
    assert {"000.jpg": "rose", "001.jpg": None, "002.jpg": "red"} == label_of(spark, lake)


def test_relabelling_reads_no_image_and_commits_only_changes(spark, lake, source, tmp_path):
    ingest(spark, lake, source)
    ids = {
        row.path.rsplit("/", 1)[1]: row.image_id
        for row in snapshots.rows(spark, lake, "images").collect()
    }
    for file in (source / "red").iterdir():
        file.unlink()
    word = table(tmp_path, "label,image_id", f"007,{ids['000.jpg']}", f"red,{ids['001.jpg']}")
    given, before = (
        read(word, source, lake),
        snapshots.required(lake, "images").version,
    )
    assert 1 == labels.append_labels(lake, given, word)
    assert {"000.jpg": "007", "001.jpg": "red", "002.jpg": "red"} == newest_label_of(spark, lake)
    assert {"000.jpg": "red", "001.jpg": "red", "002.jpg": "red"} == label_of(spark, lake)
    version = snapshots.required(lake, "labels").version
    assert 0 == labels.append_labels(lake, given, word)
    assert version == snapshots.required(lake, "labels").version
    assert before == snapshots.required(lake, "images").version


def test_of_labels_given_later_the_newest_row_counts_also_when_it_takes_the_label_away(
    spark, lake, source, tmp_path
):
    ingest(spark, lake, source)
    for label in ("rose", "daisy", ""):
        word = table(tmp_path, "path,label", f"red/000.jpg,{label}")
        assert 1 == labels.append_labels(lake, read(word, source, lake), word)
        assert {"000.jpg": label or None, "001.jpg": "red", "002.jpg": "red"} == newest_label_of(
            spark, lake
        )
    current = query(lake, f"SELECT path, label FROM ({labels.CURRENT})", ["images", "labels"])
    assert [None, "red", "red"] == current.sort_by("path")["label"].to_pylist()


def test_a_delta_table_gives_labels_too(spark, lake, source, tmp_path):
    where = str(tmp_path / "labels")
    rows = spark.createDataFrame([(f"{source}/red/002.jpg", "last")], "path string, label string")
    rows.write.format("delta").save(where)
    ingest(spark, lake, source, read(where, source, lake))
    assert "last" == label_of(spark, lake)["002.jpg"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["file,label", "a.jpg,b"], "either path or image_id"),
        (["path,image_id,label", "a,b,c"], "either path or image_id"),
        (["path,label", "a.jpg,b", "a.jpg,c"], "two labels for path"),
        (["path,label", "a.jpg,b,c"], "cannot be read"),
    ],
)
def test_a_table_without_labels_is_an_error_in_one_line(spark, tmp_path, lines, expected):
    with pytest.raises(UserError, match=expected) as raised:
        read(table(tmp_path, *lines), tmp_path)
    assert 1 == len(str(raised.value).splitlines())


def test_a_missing_table_is_an_error(spark, tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read(str(tmp_path / "no.csv"), tmp_path)


@pytest.mark.thorough
@pytest.mark.slow
def test_an_ingest_with_labels_killed_at_each_step_that_writes_and_run_again_loses_nothing(
    lake, source, store, tmp_path
):
    mlproject.ingest(str(source), lake=lake, settle=0)
    photos(source, 2, "green", seed=1)  # new images, and below a known content under another name
    shutil.copy(source / "red" / "000.jpg", source / "red" / "copy.jpg")
    given = table(tmp_path, "path,label", "red/001.jpg,rose", "green/001.jpg,leaf")
    kills, ended = 0, -signal.SIGKILL
    while ended == -signal.SIGKILL:
        assert kills < 50
        copy = str(tmp_path / f"lake-{kills}")
        shutil.copytree(lake, copy)
        options = {"lake": copy, "settle": 0, "labels": given}
        code = f"import mlproject\nmlproject.ingest({str(source)!r}, **{options!r})"
        ended = killed_at_write(code, kills)
        kills += 1
        mlproject.ingest(str(source), **options)
        rows = query(copy, "SELECT path, label FROM images", ["images"]).to_pylist()
        assert 6 == len(rows) == len({row["path"] for row in rows})
        later = query(copy, "SELECT path, label FROM labels ORDER BY at", ["labels"]).to_pylist()
        newest = {row["path"]: row["label"] for row in rows + later}
        wanted = [newest[str(source / name)] for name in ("red/001.jpg", "green/001.jpg")]
        assert ["rose", "leaf"] == wanted
    assert 0 == ended
    assert kills > 4

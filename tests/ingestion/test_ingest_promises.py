"""What is true after any ingest: each sentence is a test, and random lives of a folder."""

import hashlib
import os
import resource
import shutil
import signal
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlproject.ingestion import new_images, source_listing
from mlproject.lake import location, queries, snapshots
from mlproject.scoring import scorer
from tests.conftest import photo, photos, start_command
from tests.support.lakes import frame
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark

# A life takes a minute: one beside the one below is tried always, more when asked.
LIVES = int(os.environ.get("LIVES", "1"))
CONTENTS = [photo((30, 60, 90), seed) for seed in range(4)]


def ingest(spark, lake, source, *, settle=0.0):
    return new_images.ingest_pending(
        spark, lake, source_listing.listing(str(source), settle=settle)
    )


def rows(lake):
    """(path, image_id) of all rows, a row that stands twice twice."""
    found = queries.query(lake, "SELECT path, image_id FROM images", ["images"])
    return sorted(zip(*(column.to_pylist() for column in found.columns), strict=True))


def row(path: Path) -> tuple[str, str]:
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def eligible(source: Path) -> list[Path]:
    return [path for path in source.rglob("*") if path.is_file() and path.stat().st_size]


def test_every_file_that_is_new_or_changed_in_any_way_is_there(spark, lake, tmp_path):
    source = photos(tmp_path / "source", 4)
    (source / "empty.jpg").touch()
    (source / "grows.jpg").write_bytes(CONTENTS[0][:500])
    ingest(spark, lake, source)
    before = rows(lake)
    (source / "new.jpg").write_bytes(CONTENTS[1])
    (source / "red/000.jpg").write_bytes(CONTENTS[2])  # overwritten
    shutil.copy(source / "new.jpg", source / "late.jpg")
    os.utime(source / "late.jpg", (1e8, 1e8))  # 1973
    os.utime(source / "red/001.jpg", (1e8, 1e8))
    (source / "red/001.jpg").rename(source / "renamed.jpg")
    (source / "grows.jpg").write_bytes(CONTENTS[0])
    (source / "empty.jpg").write_bytes(CONTENTS[3])
    done = ingest(spark, lake, source)
    expected = {*before, *map(row, eligible(source))}
    assert sorted(expected) == rows(lake)
    assert (6, {}) == (done.rows, done.left)


def test_any_name_that_the_file_system_allows_is_one_path(spark, lake, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    stems = [" a b ", "%41", "#?", "[1]{2}*", "new\nline", "'\"`\\", "😀", "a:b", "ä" * 125 + "a"]
    stems += [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    for number, stem in enumerate(stems):
        (source / f"{stem}.JpG").write_bytes(photo((1, 2, 3), number))
    not_utf8 = os.fsencode(source) + b"/\xff.jpg"
    Path(os.fsdecode(not_utf8)).write_bytes(CONTENTS[0])
    done = ingest(spark, lake, source)
    assert sorted(row(source / f"{stem}.JpG") for stem in stems) == rows(lake)
    assert {"name": 1} == done.left
    assert 0 == ingest(spark, lake, source).rows
    [left] = source_listing.listing(str(source)).left.to_pylist()
    assert {"path": f"{source}/\\udcff.jpg", "reason": "name"} == left


def test_a_renamed_or_copied_file_is_a_new_path_of_the_same_image_and_not_scored_again(
    spark, lake, store, tmp_path
):
    version = register_colours("promised")
    source = photos(tmp_path / "source", 3)
    ingest(spark, lake, source)
    assert 3 == scorer.score_pending(spark, lake, version).images
    (source / "red/000.jpg").rename(source / "renamed.jpg")
    shutil.copy(source / "red/001.jpg", source / "copy.jpg")
    os.utime(source / "red/002.jpg", (1e9, 1e9))
    assert 2 == ingest(spark, lake, source).rows
    assert 0 == scorer.score_pending(spark, lake, version).images


def test_a_file_written_while_it_is_read_is_left_and_counted(spark, lake, tmp_path):
    source = photos(tmp_path / "source", 2)
    listed = source_listing.listing(str(source))
    file = source / "red/000.jpg"
    file.write_bytes(bytes(len(file.read_bytes())))  # as many bytes, others
    os.utime(file, (1e9, 1e9))
    done = new_images.ingest_pending(spark, lake, listed)
    assert (1, {"changing": 1}) == (done.rows, done.left)
    assert 1 == ingest(spark, lake, source).rows


def test_a_full_disk_is_one_line_and_the_next_ingest_ends_as_if_nothing_had_been(
    spark, tmp_path, store
):
    source = photos(tmp_path / "source", 4)
    (source / "large.png").write_bytes(os.urandom(30_000_000))
    process = start_command("ingest", "--source", "source", "--settle", "0", cwd=tmp_path)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (20_000_000, 20_000_000))
    output, _ = process.communicate(timeout=300)
    assert 1 == process.returncode, output
    assert "File too large" in output
    assert "Traceback" not in output
    assert "What was committed stays" in output
    lake = location.locate(str(tmp_path / "lake"))
    ingest(spark, lake, source)
    assert sorted(map(row, eligible(source))) == rows(lake)


def test_watching_ingests_new_files_and_stops_cleanly(store, tmp_path):
    source = photos(tmp_path / "source", 2)
    words = ("--source", "source", "--mode", "watch", "--interval", "0.2", "--settle", "0")
    process = start_command("ingest", *words, cwd=tmp_path)
    assert "Ingested 2 of 2" in said_next(process)
    (source / "new.jpg").write_bytes(CONTENTS[1])
    assert "Ingested 1 of 3" in said_next(process)
    source.rename(tmp_path / "away")
    assert "is not a folder" in said_next(process)
    (tmp_path / "away").rename(source)
    (source / "newer.jpg").write_bytes(CONTENTS[2])
    assert "Ingested 1 of 4" in said_next(process, skip="is not a folder")
    log = tmp_path / "lake" / "images" / "_delta_log"
    taken = log / f"{len(list(log.glob('*.json'))):020}.json"
    taken.mkdir()  # root may write everywhere: a folder in the commit's place stops all
    (taken / "x").touch()
    (source / "newest.jpg").write_bytes(CONTENTS[3])
    assert "cannot be written" in said_next(process)
    shutil.rmtree(taken)
    assert "Ingested 1 of 5" in said_next(process, skip="cannot be written")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert (0, True) == (process.returncode, "Stopped after" in output), output
    table = frame(str(tmp_path / "lake"), "images")
    assert sorted(map(row, eligible(source))) == sorted(
        zip(*(table[name] for name in ("path", "image_id")), strict=True)
    )


def said_next(process, skip="ingest: ") -> str:
    for line in process.stdout:
        if not line.startswith("ingest: ") and skip not in line:
            return line
    raise AssertionError("it ended")


# What may happen to a folder: (what, which file, which content or other file).
FILE = st.integers(0, 3)
HAPPENING = st.tuples(
    st.sampled_from(
        ["create", "touch", "rename", "copy", "truncate", "delete", "ingest", "ingest", "kill"]
    ),
    FILE,
    FILE,
)


class Life:
    """A folder, and what a model of the file system says that its table must hold."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder, folder / "source"
        self.source.mkdir(parents=True)
        self.expected: set[tuple[str, str]] = set()
        self.perhaps: set[tuple[str, str]] = set()
        self.moment = 1_500_000_000

    def file(self, number: int) -> Path:
        return self.source / f"{number}.jpg"

    def happen(self, what: str, first: int, second: int) -> None:
        """One thing that happens to a file; to one that is not there, nothing."""
        file, other = self.file(first), self.file(second)
        if what == "create":
            file.write_bytes(CONTENTS[second])
        elif not file.exists():
            return
        elif what == "truncate":
            os.truncate(file, 0)
        elif what == "delete":
            file.unlink()
            return
        elif what == "rename":
            file = file.rename(other)
        elif what == "copy" and file != other:
            file = Path(shutil.copy(file, other))
        self.moment += 1
        os.utime(file, (self.moment, self.moment))

    def now(self) -> set[tuple[str, str]]:
        return set(map(row, eligible(self.source)))


@pytest.mark.slow
@settings(
    max_examples=LIVES,
    deadline=None,
    derandomize=LIVES == 1,
    suppress_health_check=list(HealthCheck),
)
@given(happenings=st.lists(HAPPENING, min_size=8, max_size=16))
@example(
    happenings=[
        *[("create", number, number) for number in range(4)],
        ("kill", 1, 0),
        ("create", 0, 3),
        ("rename", 1, 2),
        ("kill", 3, 0),
        ("truncate", 3, 0),
        ("ingest", 0, 0),
        ("create", 3, 3),
        ("copy", 2, 1),
        ("touch", 0, 0),
    ]
)
def test_any_life_of_a_folder_ends_as_a_model_of_the_file_system_predicts(
    spark, store, tmp_path_factory, happenings
):
    life = Life(tmp_path_factory.mktemp("life"))
    lake = location.locate_to_write(str(life.folder / "lake"))
    for what, first, second in happenings:
        if what == "ingest":
            ingest(spark, lake, life.source)
            life.expected |= life.now()
        elif what == "kill":
            kill(life, seconds=4 + 3 * first)
            life.perhaps |= life.now()  # some of it is in the table
        else:
            life.happen(what, first, second)
    ingest(spark, lake, life.source)
    life.expected |= life.now()
    found = rows(lake)
    assert len(found) == len(set(found))
    assert life.expected <= set(found) <= life.expected | life.perhaps
    version = snapshots.to_append(lake, "images", "ingest").version
    assert (0, {}) == ((done := ingest(spark, lake, life.source)).rows, without_empty(done.left))
    assert version == snapshots.to_append(lake, "images", "ingest").version


def without_empty(left: dict[str, int]) -> dict[str, int]:
    return {reason: count for reason, count in left.items() if reason != "empty"}


def kill(life: Life, *, seconds: float) -> None:
    """An ingest that is killed, with its JVM and workers, some time after its start."""
    words = ("--source", "source", "--settle", "0", "--max_files", "1")
    process = start_command("ingest", *words, cwd=life.folder)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

"""All commands with source and lake in S3: a real server, and one JVM."""

import pytest

from mlproject.lake import queries
from tests.conftest import photo
from tests.support import s3_servers
from tests.support.fresh_processes import run_commands
from tests.support.versions import register_colours

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.s3]


@pytest.fixture
def bucket(server, empty_bucket):
    """A bucket with six photos."""
    colours = {"red": (200, 30, 30), "green": (30, 200, 30)}
    contents = {
        f"daily/{name}/{number}.jpg": photo(colour, number)
        for name, colour in colours.items()
        for number in range(3)
    }
    s3_servers.put(server, empty_bucket, **contents)
    return f"s3://{empty_bucket}"


def test_every_command_works_with_a_lake_in_s3(bucket, store, tmp_path):
    first, second = (register_colours("in-s3", reverse=reverse) for reverse in (False, True))
    pointer, lake = "models:/in-s3@champion", f"{bucket}/lake"
    erased = f"{bucket}/daily/red/1.jpg"
    commands = [
        ("ingest", "--source", f"{bucket}/daily", "--settle", "0"),
        ("score", "--model", first.uri),
        ("promote", "--model", first.uri),
        ("plan", "--pointers", pointer),
        ("rescore", "--pointers", pointer),
        ("promote", "--model", second.uri, "--gate", "warn"),
        ("rescore",),
        ("erase", "--path", erased),
        ("maintain",),
        ("ingest", "--source", f"{bucket}/daily", "--settle", "0"),
        ("history",),
        ("replay", "--model", pointer, "--image", f"{bucket}/daily/green/0.jpg"),
        ("report", "--out", str(tmp_path / "report.html")),
    ]
    printed = run_commands(tmp_path, commands, "--lake", f"s3a:{lake[3:]}/")
    assert "secret" not in printed

    images = queries.query(lake, "SELECT path, image_id FROM images", ["images"]).to_pylist()
    assert 5 == len(images)
    assert erased not in {row["path"] for row in images}
    sql = "SELECT image_id, model_version, error FROM predictions"
    rows = queries.query(lake, sql, ["predictions"]).to_pylist()
    made = {(row["image_id"], row["model_version"]) for row in rows}
    wanted = {(row["image_id"], who.version) for row in images for who in (first, second)}
    assert (wanted, 10) == (made, len(rows))
    assert {None} == {row["error"] for row in rows}
    sql = f"SELECT model_version FROM rollouts WHERE state = 'serving' AND pointer = '{pointer}'"
    served = queries.query(lake, f"{sql} ORDER BY at", ["rollouts"])["model_version"].to_pylist()
    assert [first.version, second.version] == list(dict.fromkeys(served))
    assert (tmp_path / "report.html").stat().st_size > 1000

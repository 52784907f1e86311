"""All commands with source and lake on object storage: real servers, and one JVM."""

import os

import pytest

from mlproject.integrations.spark_jars import STORES
from mlproject.lake import queries
from mlproject.storage import object_storage
from tests.conftest import photo
from tests.support import cloud_accounts, s3_servers
from tests.support.fresh_processes import run, run_commands
from tests.support.versions import register_colours

pytestmark = [pytest.mark.spark, pytest.mark.slow]

FETCH = (
    "import sys; from mlproject.integrations import spark_session as s; s.fetch_jars(sys.argv[1])"
)
MARKS = {
    "s3": pytest.mark.s3,
    "gs": pytest.mark.thorough,
    "abfss": [pytest.mark.thorough, cloud_accounts.AZURITE],
}
KEYS = ("AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "AZURE_STORAGE_ACCOUNT_KEY")


@pytest.fixture(params=[pytest.param(store, marks=MARKS[store]) for store in STORES])
def bucket(request, tmp_path):
    """The URI of a bucket with six photos."""
    # Before the connections of Java lead to the server of the bucket.
    fetched = run(FETCH, tmp_path, request.param)
    assert 0 == fetched.returncode, fetched.stderr
    if request.param == "s3":
        found = s3_servers.new_bucket(request.getfixturevalue("server"), "commands")
    else:
        kind = {"gs": "google", "abfss": "azure"}[request.param]
        found = cloud_accounts.found(kind, tmp_path)
    with found as name:
        uri = f"s3://{name}" if request.param == "s3" else name
        for label, colour in {"red": (200, 30, 30), "green": (30, 200, 30)}.items():
            for number in range(3):
                files, path = object_storage.open_path(f"{uri}/daily/{label}/{number}.jpg")
                with files.open_output_stream(path) as stream:
                    stream.write(photo(colour, number))
        yield uri


def test_every_command_works_with_a_lake_on_object_storage(bucket, store, tmp_path):
    first, second = (register_colours("in-a-bucket", reverse=reverse) for reverse in (False, True))
    pointer, lake = "models:/in-a-bucket@champion", f"{bucket}/lake"
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
    other_spelling = lake.replace("s3:", "s3a:").replace("abfss:", "abfs:")
    printed = run_commands(tmp_path, commands, "--lake", f"{other_spelling}/")
    assert not [name for name in KEYS if name in os.environ and os.environ[name] in printed]

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

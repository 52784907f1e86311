"""Commands with source and lake in Google's or Azure's cloud: real servers, and one JVM."""

import os

import pytest

from mlproject.lake import queries
from mlproject.storage import object_storage
from tests.conftest import photo
from tests.support import cloud_accounts
from tests.support.fresh_processes import run, run_commands
from tests.support.versions import register_colours

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.thorough]

AZURITE = pytest.mark.skipif(
    "TEST_AZURITE" not in os.environ, reason="`make test-azure` runs it: it needs Node.js"
)
FETCH = (
    "import sys; from mlproject.integrations import spark_session as s; s.fetch_jars(sys.argv[1])"
)


@pytest.fixture(params=cloud_accounts.KINDS)
def bucket(request, tmp_path):
    """A bucket with six photos."""
    # Before the connections of Java lead to the bucket's server.
    fetched = run(FETCH, tmp_path, {"google": "gs", "azure": "abfss"}[request.param])
    assert 0 == fetched.returncode, fetched.stderr
    with cloud_accounts.found(request.param, tmp_path) as uri:
        colours = {"red": (200, 30, 30), "green": (30, 200, 30)}
        for label, colour in colours.items():
            for number in range(3):
                files, path = object_storage.open_path(f"{uri}/daily/{label}/{number}.jpg")
                with files.open_output_stream(path) as stream:
                    stream.write(photo(colour, number))
        yield uri


def test_commands_work_with_a_lake_in_a_cloud(bucket, store, tmp_path):
    first, second = (register_colours("in-a-cloud", reverse=reverse) for reverse in (False, True))
    pointer, lake = "models:/in-a-cloud@champion", f"{bucket}/lake"
    erased = f"{bucket}/daily/red/1.jpg"
    commands = [
        ("ingest", "--source", f"{bucket}/daily", "--settle", "0"),
        ("score", "--model", first.uri),
        ("promote", "--model", first.uri),
        ("rescore", "--pointers", pointer),
        ("promote", "--model", second.uri, "--gate", "warn"),
        ("rescore",),
        ("erase", "--path", erased),
        ("maintain",),
        ("history",),
        ("report", "--out", str(tmp_path / "report.html")),
    ]
    printed = run_commands(tmp_path, commands, "--lake", lake)
    assert "several writers" not in printed.lower()
    for name in ("AZURE_STORAGE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS"):
        assert os.environ.get(name, "no such key") not in printed
    images = queries.query(lake, "SELECT path, image_id FROM images", ["images"]).to_pylist()
    assert 5 == len(images)
    assert erased not in {row["path"] for row in images}
    sql = "SELECT image_id, model_version, error FROM predictions"
    rows = queries.query(lake, sql, ["predictions"]).to_pylist()
    made = {(row["image_id"], row["model_version"]) for row in rows}
    wanted = {(row["image_id"], who.version) for row in images for who in (first, second)}
    assert (wanted, 10, {None}) == (made, len(rows), {row["error"] for row in rows})
    assert (tmp_path / "report.html").stat().st_size > 1000

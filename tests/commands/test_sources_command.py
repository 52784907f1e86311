"""The command `sources`, and a watch that uses the settings of the ingest before it."""

import json

import mlflow
import pytest

from tests.conftest import photo, photos, start_command
from tests.support.commands import run_command
from tests.support.lakes import frame
from tests.support.watches import Watch

pytestmark = [pytest.mark.spark, pytest.mark.slow]


def test_a_watch_ingests_as_the_ingest_before_it(spark, store, lake, tmp_path):
    source = photos(tmp_path / "photos", 1, "red")
    here = ("--source", str(source), "--lake", lake)
    given = ("--content", "reference", "--thumbnail_px", "64", "--include", "*", "--settle", "0")
    (source / "red/daisy_1.jpg").write_bytes(photo((9, 9, 9), 1))
    printed = run_command("ingest", *here, "--labels", "([a-z]+)_", *given).output
    assert "from now on" not in printed

    (source / "red/tulip_2").write_bytes(photo((9, 9, 9), 2))  # without a suffix
    words = (*here, "--interval", "0.3", "--idle", "600")
    with Watch(start_command("watch", *words, cwd=tmp_path)) as watch:
        watch.until("Ingested 1 of 3")
        # Another value holds for a watch that runs.
        printed = run_command("ingest", *here, "--thumbnail_px", "0").output
        assert f"thumbnail_px is 0 from now on for {source}, it was 64" in printed
        (source / "red/fern_3.jpg").write_bytes(photo((9, 9, 9), 3))
        watch.until("Ingested 1 of 4")
        watch.stop()
    rows = frame(lake, "images").sort_values("ingested_at")
    assert {"tulip", "fern", "daisy", None} == set(rows["label"])
    assert rows["content"].isna().all()
    assert [False, False, False, True] == rows["thumbnail"].isna().tolist()

    table = run_command("sources", "--lake", lake).output
    assert "thumbnail_px=0" in table
    run = mlflow.search_runs(search_all_experiments=True, output_format="list")[0]
    assert 0 == json.loads(run.data.tags["mlproject.ingest_settings"])["thumbnail_px"]
    [found] = json.loads(run_command("sources", "--lake", lake, "--json", "true").stdout)
    facts = {name: found[name] for name in ("uri", "images", "files", "backlog")}
    assert {"uri": str(source), "images": 4, "files": 4, "backlog": 0} == facts
    assert {"include": "*", "settle": 0, "thumbnail_px": 0}.items() <= found["settings"].items()


def test_a_table_of_labels_is_found_from_any_folder(spark, store, lake, tmp_path, monkeypatch):
    source = photos(tmp_path / "photos", 2, "red")
    (tmp_path / "labels.csv").write_text("path,label\nred/000.jpg,dark\n")
    here = ("--source", str(source), "--lake", lake, "--settle", "0")
    monkeypatch.chdir(tmp_path)
    run_command("ingest", *here, "--labels", "labels.csv")
    monkeypatch.chdir("/")
    (tmp_path / "labels.csv").write_text("path,label\nred/000.jpg,dark\nred/001.jpg,bright\n")
    assert "Gave 1 images another label" in run_command("ingest", *here).output
    assert "from now on" not in run_command("ingest", *here, "--labels", "folder", "--plan").output
    assert (
        "labels is folder from now on" in run_command("ingest", *here, "--labels", "folder").output
    )


def test_an_ingest_that_watches_does_not_take_back_what_another_one_names(
    spark, store, lake, tmp_path
):
    source = photos(tmp_path / "photos", 1)
    here = ("--source", str(source), "--lake", lake)
    words = (*here, "--settle", "0", "--thumbnail_px", "32", "--mode", "watch", "--interval", "0.2")
    with Watch(start_command("ingest", *words, cwd=tmp_path)) as watching:
        watching.until("Ingested 1 of 1")
        assert "it was 32" in run_command("ingest", *here, "--thumbnail_px", "0").output
        (source / "red/new.jpg").write_bytes(photo((9, 9, 9), 3))
        watching.until("Ingested 1 of 2")
        watching.stop()
    [found] = json.loads(run_command("sources", "--lake", lake, "--json", "true").stdout)
    assert {"settle": 0, "thumbnail_px": 0} == found["settings"]

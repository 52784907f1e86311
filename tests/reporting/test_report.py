import base64
import hashlib
import io
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import mlflow
import pytest
from deltalake import DeltaTable
from PIL import Image

from mlproject.errors import UserError
from mlproject.lake import location, queries
from mlproject.reporting import lake_report, report_queries
from mlproject.versions.registry import Version
from tests.conftest import photo
from tests.support.commands import run_command
from tests.support.lakes import add, add_rollout, day
from tests.support.pages import Page

OLD = Version("photos", 1, "m-old", None)
NEW = Version("photos", 2, "m-new", None)
CHAMPION = "models:/photos@champion"
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30)}


def identity(content):
    return hashlib.sha256(content).hexdigest()


def picture(number, colour="red"):
    return photo(COLOURS[colour], number)


def ingest(lake, *files):
    """Appends (path, folder, content or None, error) in one commit; gives back the ids."""
    names = ("path", "label", "content", "error")
    now = datetime.now(UTC)
    rows = [
        {
            **dict(zip(names, file, strict=True)),
            "image_id": identity(file[2] or file[0].encode()),
            "ingested_at": now,
        }
        for file in files
    ]
    add(lake, "images", *rows)
    return [row["image_id"] for row in rows]


def predict(lake, version, predictions, hour=3):
    """Appends {image_id: (label, score) or error} as predictions of a version."""
    key = zip(report_queries.KEY, (version.name, version.version, version.model_id), strict=True)
    facts = {**dict(key), "images_version": 1, "scored_at": day(2) + timedelta(hours=hour)}
    rows = []
    for image_id, found in predictions.items():
        label, score = (None, None) if isinstance(found, str) else found
        answer = {"error": found} if isinstance(found, str) else {"label": label, "score": score}
        rows.append({"image_id": image_id, **facts, **answer, "top_labels": [label]})
    add(lake, "predictions", *rows)


def serve(lake, pointer, version):
    add_rollout(lake, pointer, version, "serving", day(2.5), errors=0, images_version=1)


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory):
    """The report of six images: a copy, a broken file, and one without a prediction."""
    lake = location.locate_to_write(str(tmp_path_factory.mktemp("two") / "lake"))
    broken = picture(9)[:100]
    ids = ingest(
        lake,
        ("/photos/green/a.jpg", "green", picture(1, "green"), None),
        ("/photos/red/a.jpg", "red", picture(1), None),
        ("/photos/red/b.jpg", "red", picture(2), None),
        ("/photos/imports/b-again.jpg", "imports", picture(2), None),
        ("/photos/imports/c.jpg", "imports", picture(3), None),
        ("/photos/red/broken.jpg", "red", broken, "undecodable"),
    )
    green, red, twice, imported, bad = ids[0], ids[1], ids[2], ids[4], ids[5]
    old = {green: ("red", 0.6), red: ("red", 0.9), twice: ("red", 0.8), bad: "undecodable"}
    predict(lake, OLD, {**old, imported: ("green", 0.7)}, hour=2)
    new = {green: ("green", 0.95), red: ("green", 0.5), bad: "undecodable"}
    predict(lake, NEW, {**new, twice: ("red", 0.8), imported: "not_finite"})
    serve(lake, CHAMPION, OLD)
    ingest(lake, ("/photos/red/late.jpg", "red", picture(4), None))
    data = lake_report.collect(lake)
    return data, {"green": green, "red": red, "twice": twice, "imported": imported, "bad": bad}


def test_images_are_counted_by_content_and_the_pinned_versions_are_named(two_versions):
    data, _ = two_versions
    counted = (data.images.rows, data.images.distinct, data.images.errors, data.images.labelled)
    assert (7, 6, 1, 5) == counted  # of the copies one is in another folder
    assert {"images": 2, "predictions": 2, "rollouts": 1} == data.table_versions


def test_each_alias_has_its_serving_version_and_the_number_of_its_predictions(two_versions):
    (found,) = two_versions[0].serving
    assert (CHAMPION, OLD.model_id) == (found.pointer, found.serving.version.model_id)
    assert (1.0, 5) == (found.serving.coverage, found.predictions)


def test_accuracy_counts_predictions_in_folders_whose_name_the_version_knows(two_versions):
    old, new = two_versions[0].versions
    assert (OLD, NEW) == (old.version, new.version)
    # The two files with the bytes of "twice" have different labels: it has none.
    assert (5, 1, 2, 1) == (old.images, old.errors, old.labelled, old.correct)
    assert (5, 2, 2, 1) == (new.images, new.errors, new.labelled, new.correct)
    assert pytest.approx((0.6 + 0.9 + 0.8 + 0.7) / 4) == old.mean_score
    assert {"red": 3, "green": 1} == old.labels


def test_the_most_and_least_certain_share_no_image(two_versions):
    data, ids = two_versions
    ((version, most, least),) = data.certainties
    assert OLD == version
    assert [ids["red"], ids["twice"]] == [picture.image_id for picture in most]
    assert [ids["green"], ids["imported"]] == [picture.image_id for picture in least]


def test_a_difference_counts_the_labels_and_the_correct_predictions_of_both_versions(two_versions):
    data, ids = two_versions
    (found,) = data.differences
    assert (OLD, NEW, 3, 2) == (found.version, found.other, found.both, found.different)
    assert (1, 1) == (found.correct, found.other_correct)
    assert (("green", "red", 2),) == found.transitions
    assert [
        (ids["green"], (("red", 0.6), ("green", 0.95))),
        (ids["red"], (("red", 0.9), ("green", 0.5))),
    ] == [(picture.image_id, picture.predictions) for picture in found.pictures]


def test_errors_are_counted_for_the_table_of_images_and_for_each_version(two_versions):
    number, undecodable = two_versions[0].errors
    assert ("not_finite", 0, {NEW: 1}) == (number.code, number.unreadable, number.versions)
    assert (1, {OLD: 1, NEW: 1}) == (undecodable.unreadable, undecodable.versions)
    assert ("/photos/red/broken.jpg",) == undecodable.examples


def test_thumbnails_are_small_squares_of_the_chosen_images(two_versions):
    data, ids = two_versions
    assert {ids["green"], ids["red"], ids["twice"], ids["imported"]} == set(data.thumbnails)
    with Image.open(io.BytesIO(data.thumbnails[ids["green"]])) as image:
        assert ("JPEG", (160, 160)) == (image.format, image.size)
        red, green, blue = image.convert("RGB").getpixel((80, 80))
    assert green > red
    assert green > blue


def test_counts_of_ranges_of_ids_are_those_of_all(two_versions, monkeypatch):
    data, _ = two_versions
    monkeypatch.setattr(queries, "JOINED_ROWS", 1)
    assert data == replace(lake_report.collect(data.lake), made_at=data.made_at)


def test_a_copy_without_a_label_takes_none_from_its_image(lake):
    ids = ingest(lake, ("/a.jpg", "red", picture(1), None), ("/b.jpg", None, picture(1), None))
    predict(lake, OLD, {ids[0]: ("red", 0.9)})
    data = lake_report.collect(lake)
    ((_, (shown,), _),) = data.certainties
    assert (1, 1, "red") == (data.images.labelled, data.versions[0].correct, shown.folder)


def test_newer_tables_are_read_when_an_erasure_removes_files_meanwhile(lake, monkeypatch):
    ids = ingest(lake, *((f"/{n}.jpg", "red", picture(n), None) for n in range(3)))
    predict(lake, OLD, dict.fromkeys(ids, ("red", 0.9)))
    count_errors, erased = report_queries.count_errors, []

    def after_an_erasure(tables):
        if not erased:
            erased.append(ids[0])
            table = DeltaTable(f"{lake}/images")
            table.delete(f"image_id = '{ids[0]}'")
            table.vacuum(0, dry_run=False, enforce_retention_duration=False)
        return count_errors(tables)

    monkeypatch.setattr(report_queries, "count_errors", after_an_erasure)
    data = lake_report.collect(lake)
    assert 2 == data.images.distinct
    assert set(ids[1:]) == set(data.thumbnails)


def page(data):
    html = lake_report.render(data)
    read = Page(html)
    assert [] == read.open
    return html, read


def test_the_page_loads_no_other_file(two_versions):
    html, read = page(two_versions[0])
    outside = [a for a in read.addresses if not a.startswith(("#", "data:image/jpeg;base64,"))]
    assert [] == outside
    assert [] == re.findall(r"url\(|@import|https?://|<script", html)
    encoded = base64.b64encode(next(iter(two_versions[0].thumbnails.values()))).decode()
    assert encoded in html


def test_html_in_labels_and_paths_stays_text_and_long_ones_stay_whole(lake):
    label, long = "<b>bold</b>", "long-" * 60
    path = f"/photos/<script>/{'deep/' * 60}a&b.jpg"
    ids = ingest(
        lake,
        (path, "<i>", picture(1), None),
        ("/photos/2", long, picture(2), "<u>odd</u>"),
    )
    predict(lake, OLD, {ids[0]: (label, 0.5), ids[1]: (long, 0.4)})
    html, read = page(lake_report.collect(lake))
    assert set() == {"i", "u", "script"} & set(read.tags)
    assert "&lt;b&gt;bold&lt;/b&gt;" in html
    assert any(label in text for text in read.text)
    assert any(long in text for text in read.text)


def test_a_lake_of_images_alone_gives_a_page(lake):
    ingest(lake, ("/photos/a.jpg", None, picture(1), None))
    data = lake_report.collect(lake)
    assert {"images": 1, "predictions": None, "rollouts": None} == data.table_versions
    parts = (data.serving, data.versions, data.certainties, data.differences, data.errors)
    assert ((), (), (), (), ()) == parts
    page(data)


def test_the_error_for_a_lake_without_images_names_the_command_to_run(lake):
    with pytest.raises(UserError, match="ingest"):
        lake_report.collect(lake)


def test_a_model_made_again_under_the_same_name_is_another_version(lake):
    (key,) = ingest(lake, ("/photos/a.jpg", None, picture(1), None))
    again = Version(OLD.name, OLD.version, "m-again", None)
    predict(lake, OLD, {key: ("red", 0.5)}, hour=2)
    predict(lake, again, {key: ("green", 0.5)})
    serve(lake, CHAMPION, again)
    data = lake_report.collect(lake)
    assert [OLD, again] == [found.version for found in data.versions]
    assert ([], [CHAMPION]) == (data.pointers(OLD), data.pointers(again))
    assert data.name(OLD) != data.name(again)
    assert [(again, OLD, 1)] == [(d.version, d.other, d.different) for d in data.differences]


def test_equal_versions_and_predictions_without_label_or_thumbnail_give_a_page(lake):
    ids = ingest(
        lake,
        ("/photos/a.jpg", None, picture(1), None),
        ("/photos/unread.jpg", None, None, None),
    )
    answers = {ids[0]: (None, 0.5), ids[1]: ("red", float("nan"))}
    for version in (OLD, NEW):
        predict(lake, version, answers)
    data = lake_report.collect(lake)
    assert {None: 1, "red": 1} == data.versions[0].labels
    assert (2, 0) == (data.differences[0].both, data.differences[0].different)
    assert {ids[0]} == set(data.thumbnails)
    page(data)


def test_of_many_labels_and_versions_the_most_used_are_shown(lake, monkeypatch):
    monkeypatch.setattr(lake_report, "LABELS", 3)
    monkeypatch.setattr(lake_report, "COLUMNS", 2)
    ids = ingest(lake, *((f"/p/{n}.jpg", None, None, None) for n in range(4)))
    versions = [Version("photos", number, f"m-{number}", None) for number in (1, 2, 3)]
    for hour, version in enumerate(versions):
        own = f"only {version.version}"
        answers = dict(zip(ids, ((label, 0.5) for label in ("a", "a", "b", own)), strict=True))
        predict(lake, version, answers, hour)
    serve(lake, CHAMPION, versions[0])
    data = lake_report.collect(lake)
    assert (versions[0], versions[2]) == data.columns
    assert (("a", "b", "only 1"), 1) == (data.labels.shown, data.labels.others)
    page(data)


def test_the_command_writes_the_page_and_logs_it_to_its_run(lake, store, tmp_path):
    ingest(lake, ("/photos/a.jpg", None, picture(1), None))
    out = tmp_path / "deep" / "page.html"
    run_command("report", "--lake", lake, "--out", str(out))
    run = mlflow.last_active_run()
    logged = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/page.html")
    assert out.read_text(encoding="utf-8") == logged
    assert 1 == run.data.metrics["images"]


def test_a_report_that_cannot_be_written_is_refused_before_the_tables_are_read(store, tmp_path):
    result = run_command("report", "--out", str(tmp_path), code=2)
    assert "is a folder" in result.stderr

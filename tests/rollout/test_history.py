import pytest

from mlproject.errors import UserError
from mlproject.rollout import history, ledger
from tests.support.lakes import add, add_image, add_predictions, add_rollout, day, version

POINTER = "models:/photos@champion"
A, B, C = version(1), version(2), version(3)
MOVED = "the pointer moved from models:/photos/1"


@pytest.fixture
def there_and_back(lake):
    """A serves from day 2, B from day 4, A again from day 6; C failed on day 8."""
    add_rollout(lake, POINTER, A, "scoring", day(1), answered=0)
    add_rollout(lake, POINTER, A, "serving", day(2), "the first version at this pointer")
    add_rollout(lake, POINTER, B, "scoring", day(3), MOVED, answered=0)
    add_rollout(lake, POINTER, A, "serving", day(3.5), "images came", images=6, answered=6)
    add_rollout(lake, POINTER, A, "superseded", day(3.9), images=6, answered=6)
    add_rollout(lake, POINTER, B, "serving", day(4), MOVED, images=6, answered=6)
    add_rollout(lake, POINTER, B, "superseded", day(5.9))
    add_rollout(lake, POINTER, A, "serving", day(6), "the pointer moved from models:/photos/2")
    add_rollout(lake, POINTER, C, "scoring", day(7), answered=0)
    add_rollout(lake, POINTER, C, "scoring", day(7.5), "stopped", answered=2)
    add_rollout(lake, POINTER, C, "failed", day(8), "errors on 3 of 5 images")
    return lake


def summary(periods):
    return [(one.version.version, one.last.state, one.began.at, one.until) for one in periods]


def test_each_version_served_until_the_next_did(there_and_back):
    periods = ledger.read(there_and_back).periods(POINTER)
    assert [
        (1, "serving", day(2), day(4)),
        (2, "serving", day(4), day(6)),
        (1, "serving", day(6), None),
    ] == summary(periods)


def test_a_period_has_the_reason_of_its_begin_and_its_last_counts(there_and_back):
    first = ledger.read(there_and_back).periods(POINTER)[0]
    assert ("the first version at this pointer", 6) == (
        first.began.reason,
        first.last.covered.images,
    )


def test_an_attempt_that_failed_has_its_reason(there_and_back):
    [attempt] = ledger.read(there_and_back).attempts(POINTER)
    assert [(3, "failed", day(7), day(8))] == summary([attempt])
    assert "errors on 3 of 5 images" == attempt.last.reason


def test_attempts_may_be_superseded_go_on_or_fail_at_once(lake):
    add_rollout(lake, POINTER, A, "scoring", day(1), answered=0)
    add_rollout(lake, POINTER, A, "superseded", day(2), "the pointer moved to models:/photos/2")
    add_rollout(lake, POINTER, B, "failed", day(3), "no package")
    add_rollout(lake, POINTER, A, "scoring", day(4), answered=1)
    rows = ledger.read(lake)
    assert [
        (1, "superseded", day(1), day(2)),
        (2, "failed", day(3), day(3)),
        (1, "scoring", day(4), None),
    ] == summary(rows.attempts(POINTER))
    assert [] == rows.periods(POINTER)


def test_a_version_that_failed_and_serves_after_a_retry_has_both(lake):
    add_rollout(lake, POINTER, A, "failed", day(1), "it hangs")
    add_rollout(lake, POINTER, A, "scoring", day(2), answered=0)
    add_rollout(lake, POINTER, A, "serving", day(3))
    rows = ledger.read(lake)
    assert [(1, "failed", day(1), day(1))] == summary(rows.attempts(POINTER))
    assert [(1, "serving", day(3), None)] == summary(rows.periods(POINTER))


def test_version_1_of_a_model_made_again_is_another_version(lake):
    old, new = version(1, "m-aaaabbbbcccc"), version(1, "m-ddddeeeeffff")
    image = add_image(lake, "/a.jpg", b"a", day(1))
    for at, one, label in ((1, old, "red"), (3, new, "blue")):
        add_predictions(lake, one, [image], day(at), label=label)
        add_rollout(lake, POINTER, one, "serving", day(at + 1))
    rows = ledger.read(lake)
    periods = rows.periods(POINTER)
    assert ["1 (m-aaaabbbb)", "1 (m-ddddeeee)"] == [
        history.version_name(rows, one.version) for one in periods
    ]
    assert [(day(2), day(4)), (day(4), None)] == [(one.began.at, one.until) for one in periods]
    for at, label in ((3, "red"), (5, "blue")):
        assert ((label, 1),) == history.count_predictions(lake, rows, POINTER, day(at)).labels


def test_a_version_whose_number_is_unique_is_named_by_it(there_and_back):
    rows = ledger.read(there_and_back)
    assert ["1", "2", "1"] == [
        history.version_name(rows, one.version) for one in rows.periods(POINTER)
    ]


@pytest.mark.parametrize(
    ("at", "label"), [(1.5, None), (2, "red"), (3.99, "red"), (4, "blue"), (6, "red"), (30, "red")]
)
def test_at_each_time_the_predictions_are_those_of_the_serving_version(there_and_back, at, label):
    lake = there_and_back
    image = add_image(lake, "/a.jpg", b"a", day(1))
    add_predictions(lake, A, [image], day(1.5), label="red")
    add_predictions(lake, B, [image], day(3), label="blue")
    add_predictions(lake, C, [image], day(7.5), label="green")
    rows = ledger.read(lake)
    found = history.count_predictions(lake, rows, POINTER, day(at))
    assert ([label] if label else []) == [label for label, _ in found.labels]
    one = history.current_prediction(
        lake, rows, POINTER, history.find_image(lake, image, day(at)), day(at)
    )
    assert label == (one.prediction.label if one.prediction else None)
    assert (found.period is None) == (one.period is None)


def test_a_day_means_its_end(there_and_back):
    rows = ledger.read(there_and_back)
    versions = [
        rows.serving(POINTER, ledger.moment(words)).version.version
        for words in ("2026-01-03", "2026-01-04", "2026-01-04T01:00:00+02:00")
    ]
    assert [1, 2, 1] == versions


@pytest.mark.parametrize(
    ("words", "at"),
    [
        ("2026-01-02", "2026-01-02T23:59:59.999999+00:00"),
        ("20260102", "2026-01-02T23:59:59.999999+00:00"),
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02 03:04:05+01:00", "2026-01-02T02:04:05+00:00"),
        ("9999-12-31", "9999-12-31T23:59:59.999999+00:00"),
    ],
)
def test_a_time_is_a_date_or_has_a_clock(words, at):
    assert at == ledger.moment(words).isoformat()


@pytest.mark.parametrize("words", ["yesterday", "2026-13-01", "", "0001-01-01T00:00:00+14:00"])
def test_what_is_no_time_is_an_error(words):
    with pytest.raises(UserError, match="is not a time"):
        ledger.moment(words)


@pytest.mark.parametrize("words", ["0001-01-01", "9999-12-31"])
def test_any_time_of_the_calendar_is_accepted(there_and_back, words):
    lake = there_and_back
    add_predictions(lake, A, ["0" * 64], day(1), label="red")
    rows, at = ledger.read(lake), ledger.moment(words)
    served = words > "2026"
    assert served == bool(history.count_predictions(lake, rows, POINTER, at).labels)


def test_predictions_that_came_later_are_left_out(lake):
    for path, at in (("/old.jpg", 1), ("/new.jpg", 5)):
        image = add_image(lake, path, path.encode(), day(at))
        add_predictions(lake, A, [image], day(at), label="red", images_version=at)
    add_rollout(lake, POINTER, A, "serving", day(2), images=1, answered=1, errors=0)
    rows = ledger.read(lake)
    assert [1, 2] == [
        history.count_predictions(lake, rows, POINTER, day(at)).labels[0][1] for at in (4.9, 5.1)
    ]
    assert (("red", 2),) == history.count_predictions(lake, rows, POINTER, None).labels


def test_predictions_that_a_row_counted_are_included_though_their_clock_was_ahead(lake):
    image = add_image(lake, "/a.jpg", b"a", day(1))
    add_predictions(
        lake, A, [image], day(9), label="red", images_version=3
    )  # a clock that is a week ahead
    add_rollout(lake, POINTER, A, "serving", day(2), images=1, answered=1)
    rows = ledger.read(lake)
    assert (("red", 1),) == history.count_predictions(lake, rows, POINTER, day(2)).labels


def test_of_a_version_that_serves_with_gaps_each_prediction_counts_by_its_own_time(lake):
    image = add_image(lake, "/a.jpg", b"a", day(1))
    add_predictions(lake, A, [image], day(9), label="red", images_version=3)
    add_rollout(lake, POINTER, A, "serving", day(2), images=2, answered=1)
    rows = ledger.read(lake)
    assert () == history.count_predictions(lake, rows, POINTER, day(8)).labels
    assert (("red", 1),) == history.count_predictions(lake, rows, POINTER, day(9)).labels


def test_rows_written_by_a_clock_that_was_ahead_keep_their_order(lake):
    add_rollout(lake, POINTER, A, "serving", day(10_000))
    rows = ledger.read_to_write(lake, POINTER)
    [entry] = rows.entries
    served = ledger.Entry(
        ledger.Version("photos", 2, B.model_id, POINTER), "serving", 1.0, None, "", "", day(1)
    )
    assert ledger.write(rows, [served]) is not None
    assert [1, 2] == [one.version.version for one in ledger.read(lake).periods(POINTER)]
    assert entry.at < ledger.read(lake).serving(POINTER).at


def test_errors_and_labels_are_counted_apart(lake):
    for number, answer in enumerate([{"label": "red"}, {"label": "red"}, {"error": "empty"}]):
        add_predictions(lake, A, [f"{number:064}"], day(1), **answer)
    add_rollout(lake, POINTER, A, "serving", day(2))
    found = history.count_predictions(lake, ledger.read(lake), POINTER, None)
    assert ((("red", 2),), (("empty", 1),)) == (found.labels, found.errors)


def test_a_path_means_the_content_that_it_had_then(lake):
    first = add_image(lake, "/a'b.jpg", b"first", day(1))
    second = add_image(lake, "/a'b.jpg", b"second", day(3))
    note = {"path": "/a'b.jpg", "image_id": first, "size_bytes": 5}
    add(lake, "files", note | {"state": "unchanged", "at": day(5)})
    add(lake, "files", note | {"state": "gone", "at": day(7)})
    found = [history.find_image(lake, "/a'b.jpg", day(at)) for at in (2, 4, 6, 8)]
    assert [first, second, first, first] == [one.image_id for one in found]
    assert ["ingested", "ingested", "unchanged", "gone"] == [one.state for one in found]


def test_an_image_id_in_capitals_is_the_same(lake):
    image = add_image(lake, "/a.jpg", b"a", day(1))
    assert image == history.find_image(lake, image.upper(), None).image_id


def test_an_image_that_came_later_is_an_error(lake):
    add_image(lake, "/a.jpg", b"a", day(3))
    with pytest.raises(UserError, match=r"not in the tables before 2026-01-03"):
        history.find_image(lake, "/a.jpg", day(2))


def test_an_erased_image_is_an_error(lake):
    add(lake, "erased", {"image_id": "0" * 64, "size_bytes": 1, "at": day(4)})
    with pytest.raises(UserError, match="was erased at 2026-01-04"):
        history.find_image(lake, "0" * 64, None)


@pytest.mark.parametrize("words", ["1" * 64, "/nowhere.jpg"])
def test_an_image_that_the_tables_do_not_have_is_an_error(lake, words):
    with pytest.raises(UserError, match="have no image"):
        history.find_image(lake, words, None)


def test_an_alias_that_was_never_rolled_out_is_an_error_that_names_those_that_were(there_and_back):
    rows = ledger.read(there_and_back)
    assert [POINTER] == history.known_aliases(rows, [])
    with pytest.raises(UserError, match=POINTER):
        history.known_aliases(rows, ["models:/photos@other"])
    with pytest.raises(UserError, match="No alias is rolled out"):
        history.known_aliases(ledger.LedgerSnapshot(None, ()), [])

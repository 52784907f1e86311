import pytest

from mlproject.service.retries import LONGEST_S, Retries, Troubles, delay_s


@pytest.mark.parametrize(
    ("failures", "interval", "expected"),
    [
        (0, 30, 30),
        (1, 30, 60),
        (2, 30, 120),
        (9, 30, LONGEST_S),
        (100_000, 30, LONGEST_S),
        (3, 3600, 3600),
        (1, 0.1, 0.2),
    ],
)
def test_tries_come_later_and_later_up_to_ten_minutes_or_the_interval(failures, interval, expected):
    assert expected == delay_s(failures, interval)


def test_what_failed_is_due_later_until_it_succeeds_or_all_is_tried():
    retries = Retries(30)
    assert retries.is_due("photos")
    retries.failed("photos")
    assert (False, True, True) == (
        retries.is_due("photos"),
        "photos" in retries,
        retries.is_due("other"),
    )
    retries.clear()
    assert retries.is_due("photos")
    retries.failed("photos")
    retries.succeeded("photos")
    assert (True, False) == (retries.is_due("photos"), "photos" in retries)


def test_a_trouble_is_reported_once_and_without_a_password():
    faults, messages = [], []
    troubles = Troubles(faults.append, messages.append)
    for _ in range(2):
        troubles.report("photos", "http://us:passing-by@host is away")
    assert ["photos: http://***@host is away"] == faults
    assert {"photos": "http://***@host is away"} == troubles.now()
    troubles.report("photos", "")
    assert ["photos: works again"] == messages

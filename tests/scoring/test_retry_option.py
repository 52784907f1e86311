"""The option `retry` of the commands that score."""

import pytest

from mlproject.errors import UserError
from mlproject.scoring import coverage, scoring_runs


@pytest.mark.parametrize(
    ("given", "versions", "codes"),
    [
        (False, False, ()),
        (True, True, ()),
        ("true", True, ()),
        ("errors", True, coverage.RETRYABLE),
        (["gone", "model_failed"], True, ("gone", "model_failed")),
        ("gone", True, ("gone",)),
    ],
)
def test_what_the_option_names(given, versions, codes):
    assert scoring_runs.Retry(versions, codes) == scoring_runs.parse_retry(given)


@pytest.mark.parametrize("given", ["undecodable", "errors,gone", "", [], "yes"])
def test_an_option_that_names_something_else_is_the_users_error(given):
    allowed = "Write false, true, errors, or codes of errors that can change: model_failed,gone,"
    with pytest.raises(UserError, match=allowed):
        scoring_runs.parse_retry(given)

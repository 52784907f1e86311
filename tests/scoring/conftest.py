"""What the tests of scoring share."""

import pytest

from mlproject.scoring import batch_scoring


@pytest.fixture(autouse=True)
def short_wait(monkeypatch):
    """A retry after a fault of the machine comes soon: the faults of tests end at once."""
    monkeypatch.setattr(batch_scoring, "RETRY_WAIT_S", 0.1)

"""The model around a version that raises: how often it calls the version, and what it raises."""

import re

import pandas as pd
import pytest

from mlproject.scoring.guarded_model import COLUMNS, GuardedModel


class Version:
    """Predicts `fine` for all images of a batch, or raises on some; it counts its batches."""

    def __init__(self, raises: set[int], message: str = "a bug") -> None:
        self.raises, self.message, self.batches = raises, message, 0

    def predict(self, images: pd.DataFrame) -> pd.DataFrame:
        self.batches += 1
        if self.raises & set(images["number"]):
            raise RuntimeError(self.message)
        return pd.DataFrame([("fine", 0.5, [], [], None)] * len(images), columns=COLUMNS)


def predicted(version: Version, images: int) -> list[str]:
    guard = GuardedModel()
    guard.version, guard.failed, guard.machine_faults = version, "failed", re.compile("CUDA")
    rows = guard.predict(None, pd.DataFrame({"number": range(images)}))
    assert COLUMNS == list(rows.columns)
    return [error or label for label, error in zip(rows.label, rows.error, strict=True)]


def test_one_image_that_raises_costs_two_batches_a_halving():
    version = Version({37})
    expected = ["failed" if number == 37 else "fine" for number in range(64)]
    assert expected == predicted(version, 64)
    assert 1 + 2 * 6 == version.batches


def test_a_version_that_raises_on_every_image_is_called_less_than_twice_an_image():
    version = Version(set(range(64)))
    assert ["failed"] * 64 == predicted(version, 64)
    assert 2 * 64 - 1 == version.batches


def test_a_fault_of_the_machine_on_one_image_is_raised_and_is_no_result():
    with pytest.raises(RuntimeError, match="CUDA"):
        predicted(Version({3}, "CUDA error"), 8)

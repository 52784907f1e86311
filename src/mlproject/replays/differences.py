"""Differences between a prediction then and now, and between the environments that made them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlproject.rollout.history import Prediction
from mlproject.versions.version_files import DIGEST, Files


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not the same now."""

    what: str
    """A column of `predictions`; or `files`, `preprocessing` or `package NAME`."""
    then: Any
    """Its value then; None = none."""
    now: Any
    """Its value now; None = none."""


def differences(then: Prediction, now: Prediction, tolerance: float) -> Iterator[Difference]:
    """The columns in which two predictions differ.

    Labels with equal scores may change places, except the first label.
    """
    if then.label != now.label:
        yield Difference("label", then.label, now.label)
    if then.error != now.error:
        yield Difference("error", then.error, now.error)
    if not _near(then.score, now.score, tolerance):
        yield Difference("score", then.score, now.score)
    first, second = dict(then.top), dict(now.top)
    if list(first) != list(second) and not _tied(first, second, tolerance):
        yield Difference("top_labels", list(first), list(second))
    ranks = zip(first.values(), second.values(), strict=False)
    if len(first) != len(second) or not all(_near(*pair, tolerance) for pair in ranks):
        yield Difference("top_scores", list(first.values()), list(second.values()))


def _tied(first: dict[str, float], second: dict[str, float], tolerance: float) -> bool:
    """Whether two rankings of labels differ only in places of equal scores.

    A label that is missing from one is compared with its last score, below which it was cut.
    """
    if not first or not second:
        return False
    lowest = min(first.values()), min(second.values())
    pairs = [(first.get(one, lowest[0]), second.get(one, lowest[1])) for one in first | second]
    return all(_near(*pair, tolerance) for pair in pairs)


def _near(then: float | None, now: float | None, tolerance: float) -> bool:
    if then is None or now is None:
        return then is now
    return abs(then - now) <= tolerance


def changed_environment(tags: Mapping[str, str], files: Files) -> Iterator[Difference]:
    """The files, preprocessing and packages that are not those in the tags of a run."""
    for tag, what, now in (
        (DIGEST, "files", files.digest),
        ("mlproject.preprocessing", "preprocessing", files.preprocessing),
    ):
        if tag in tags and tags[tag] != now:
            yield Difference(what, tags[tag], now)
    if "mlproject.packages" in tags:
        pins = tags["mlproject.packages"].split()
        then = {name: pin for name, _, pin in (each.partition("==") for each in pins)}
        here = {name: found for name, _, found in files.packages}
        for name in sorted(then | here):
            if then.get(name) != here.get(name):
                yield Difference(f"package {name}", then.get(name), here.get(name))

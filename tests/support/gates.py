"""Gates on predictions that were written as rows: what they are run with, and what they return."""

from mlproject.gates import checks
from mlproject.gates.verdicts import Limits
from tests.support.lakes import add_images, add_predictions


def run_gates(client, lake, version, serving=None, **options):
    fault, score = options.pop("fault", ""), options.pop("score", lambda version, ids: None)
    mode, approved = options.pop("mode", "block"), options.pop("approved", False)
    return checks.check_version(
        client,
        lake,
        version,
        serving,
        reference_fault=lambda version: fault,
        score=score,
        limits=Limits(**options),
        mode=mode,
        approved=approved,
    )


def add_labelled(lake, versions, right: int, before: int, of: int = 100, label: str = "red"):
    """Images of a label with so many correct predictions of each version."""
    ids = add_images(lake, range(of), label=label)
    for version, count in zip(versions, (before, right), strict=True):
        add_predictions(lake, version, ids[:count], label=label)
        add_predictions(lake, version, ids[count:], label="green" if label == "red" else "red")
    return ids


def states(results):
    return {verdict.gate: verdict.state for verdict in results.verdicts}


def refused(results):
    return [verdict.gate for verdict in results.refused]


def found(results, gate):
    return next(verdict.found for verdict in results.verdicts if verdict.gate == gate)

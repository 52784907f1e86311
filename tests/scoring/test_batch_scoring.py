"""Which images are blamed and which are scored when workers die, of hundreds and without Spark.

In place of Spark's jobs stand functions that fail where workers would die; `test_faults` shows
the same with real workers.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pyarrow as pa
import pytest

from mlproject.errors import MachineError, RefusedError
from mlproject.scoring import batch_scoring, coverage
from mlproject.scoring.batch_scoring import Progress, Scoring, Settings
from mlproject.scoring.workers import WorkerError

BATCH = 100  # images


class Machine:
    """Images and a version whose workers die with some of them; what became of the images."""

    def __init__(self, monkeypatch, count, kills, *, predicted=True, retries=False):
        self.kills, self.retries = kills, retries
        self.pending, self.failed, self.scored = list(range(count)), [], []
        self.before = predicted  # whether the version has predicted images in the table
        self.tries = self.probes = 0
        self.has_bytes = True  # whether the images that were predicted before have bytes
        self.write_fails = 0  # times that the row of a blamed image cannot be written
        monkeypatch.setattr(batch_scoring, "_scored", self._scored)
        monkeypatch.setattr(batch_scoring, "_probe", self._probe)
        monkeypatch.setattr(batch_scoring.workers, "prepare", lambda *given: None)
        monkeypatch.setattr(batch_scoring, "RETRY_WAIT_S", 0)
        monkeypatch.setattr(coverage, "has_predicted", lambda *given: self.before)

    def score(self):
        """One scoring of all that is pending, each image an ingest commit of its own."""
        times = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=i) for i in self.pending]
        names = list(map(str, self.pending))
        columns = {"image_id": names, "ingested_at": pa.array(times), "path": names}
        self.table = pa.table({**columns, "size_bytes": [1] * len(names)})
        scoring = Scoring(
            SimpleNamespace(sparkContext=SimpleNamespace(defaultParallelism=1)),
            "lake",
            SimpleNamespace(uri="models:/photos/1"),
            Settings(batch_images=BATCH),
            unreadable=None,
            predict=None,
            retries=self.retries,
            commit=None,
        )
        try:
            for _ in batch_scoring.scored_batches(
                scoring, Progress(None, None), self.table, lambda: False
            ):
                pass
        finally:
            self.before |= bool(self.scored) and not self.retries
            done = {*self.failed, *self.scored}
            self.pending = [image for image in self.pending if image not in done]

    def _scored(self, scoring, progress, item, *, is_new):
        ids = self.table["image_id"].slice(item.batch.start, item.batch.images)
        images = [int(one) for one in ids.to_pylist()]
        if item.is_blamed:
            if self.write_fails:
                self.write_fails -= 1
                raise WorkerError("raised", "no row")
            self.failed += images
        else:
            self.tries += 1
            if self.kills(self, images):
                raise WorkerError("crashed", "a worker process died")
            self.scored += images
        return replace(
            progress,
            count=progress.count + len(images),
            errors=progress.errors + len(images) * item.is_blamed,
            quarantined=progress.quarantined + item.is_blamed,
        )

    def _probe(self, scoring, progress):
        self.probes += 1
        if not self.has_bytes and not self.scored:
            return "impossible"
        return "failed" if self.kills(self, [-1]) else "predicted"


def of(*killers):
    return lambda machine, images: not set(images).isdisjoint(killers)


@pytest.mark.parametrize("killers", [(10, 130, 270, 390), (10, 30, 60, 90), (0, 1, 2, 3)])
def test_three_images_are_blamed_in_a_scoring_and_the_next_one_goes_on(monkeypatch, killers):
    machine = Machine(monkeypatch, 8 * BATCH, of(*killers))
    with pytest.raises(RefusedError, match="died, as with 3 images before, which have the error"):
        machine.score()
    assert 3 == len(machine.failed)
    assert len(machine.scored) > 7 * BATCH - 3
    machine.score()
    assert [*killers] == sorted(machine.failed)
    assert [] == machine.pending


def test_an_image_of_a_new_version_is_blamed_once_others_were_predicted(monkeypatch):
    machine = Machine(monkeypatch, BATCH, of(0), predicted=False)
    machine.score()
    assert ([0], BATCH - 1) == (machine.failed, len(machine.scored))


def test_at_each_step_of_the_search_a_half_is_committed(monkeypatch):
    machine = Machine(monkeypatch, BATCH, of(0))
    seen = []
    machine.kills = lambda machine, images: seen.append(len(machine.scored)) or 0 in images
    machine.score()
    assert seen == sorted(seen)
    assert sum(images > 0 for images in seen) > len(seen) / 2


def test_micro_batches_that_are_scored_in_halves_are_blamed_on_nobody(monkeypatch):
    first = {0, 300, 600, 900}  # micro-batches of these fail whenever they are whole
    machine = Machine(
        monkeypatch,
        12 * BATCH,
        lambda machine, images: len(images) == BATCH and images[0] in first,
    )
    machine.score()
    assert ([], 12 * BATCH) == (machine.failed, len(machine.scored))


@pytest.mark.parametrize("count", [1, BATCH, 8 * BATCH])
def test_a_machine_on_which_all_workers_die_is_found_at_once(monkeypatch, count):
    machine = Machine(monkeypatch, count, lambda machine, images: True)
    with pytest.raises(MachineError, match="then with images that were predicted before"):
        machine.score()
    assert (2, 1, []) == (machine.tries, machine.probes, machine.failed)


def test_a_machine_that_fails_in_the_middle_blames_no_image(monkeypatch):
    machine = Machine(
        monkeypatch, 8 * BATCH, lambda machine, images: len(machine.scored) >= 3 * BATCH
    )
    with pytest.raises(MachineError):
        machine.score()
    assert ([], 3 * BATCH) == (machine.failed, len(machine.scored))


def test_where_no_predicted_image_has_bytes_any_more_an_image_waits_for_others(monkeypatch):
    machine = Machine(monkeypatch, BATCH, of(0))
    machine.has_bytes = False
    machine.score()
    assert ([0], BATCH - 1) == (machine.failed, len(machine.scored))


def test_then_a_version_that_kills_all_workers_is_refused_soon(monkeypatch):
    machine = Machine(monkeypatch, 8 * BATCH, lambda machine, images: True)
    machine.has_bytes = False
    with pytest.raises(RefusedError):
        machine.score()
    assert machine.tries <= 14


@pytest.mark.parametrize(("predicted", "most"), [(False, 14), (True, 54)])
def test_a_version_whose_workers_die_with_each_new_image_is_refused(monkeypatch, predicted, most):
    machine = Machine(
        monkeypatch, 60 * BATCH, lambda machine, images: images != [-1], predicted=predicted
    )
    monkeypatch.setattr(f"{__name__}.BATCH", 60 * BATCH)
    with pytest.raises(RefusedError):
        machine.score()
    assert machine.tries <= most
    assert (3 if predicted else 0) == len(machine.failed)


def test_a_retry_of_a_version_without_a_prediction_blames_nothing_on_images(monkeypatch):
    machine = Machine(
        monkeypatch,
        8 * BATCH,
        lambda machine, images: len(machine.scored) >= BATCH,
        predicted=False,
        retries=True,
    )
    machine.score()
    assert ([], BATCH) == (machine.failed, len(machine.scored))


def test_a_retry_leaves_images_after_ten_that_kill_workers(monkeypatch):
    machine = Machine(
        monkeypatch, 2 * BATCH, of(*range(0, 2 * BATCH, 10)), retries=True, predicted=True
    )
    machine.score()
    assert 10 == len(machine.failed)
    assert len(machine.pending) <= BATCH


@pytest.mark.parametrize(("times", "expected"), [(1, [7]), (2, [])])
def test_a_fault_while_the_error_is_written_is_the_machines(monkeypatch, times, expected):
    machine = Machine(monkeypatch, BATCH, of(7))
    machine.write_fails = times
    if expected:
        machine.score()
    else:
        with pytest.raises(MachineError, match="2 times no row"):
            machine.score()
    assert expected == machine.failed

"""Scoring of one version for a roll-out, within the limits of the run."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlflow import MlflowClient

from mlproject.integrations import spark_session
from mlproject.integrations.spark_session import LazySession
from mlproject.rollout.decision import Score
from mlproject.rollout.runs import RolloutRuns
from mlproject.scoring import scoring_runs
from mlproject.scoring.batch_scoring import Settings
from mlproject.scoring.scorer import ScoringResult, retry_errors, score_pending

Stop = Callable[[], bool]


@dataclass(slots=True)
class Budget:
    """What the limits of one run still allow, over all its aliases."""

    images: float = math.inf
    """Images to score."""
    size_bytes: float = math.inf
    """Bytes to read."""
    until: float = math.inf
    """When scoring ends, in seconds of `time.monotonic`."""

    def is_spent(self) -> bool:
        """Whether nothing more may be scored."""
        return self.images <= 0 or self.size_bytes <= 0 or time.monotonic() >= self.until


@dataclass(frozen=True, slots=True)
class VersionScorer:
    """Scores versions for the roll-outs of one run, within its budget."""

    client: MlflowClient
    lake: str
    spark: LazySession
    runs: RolloutRuns
    budget: Budget
    task_timeout: float
    on_progress: Callable[[str, int, int], None]
    """Called after each micro-batch with the version's URI, images done, and images to do."""
    on_message: Callable[[str], None]
    on_task: Callable[[], None] = lambda: None
    """Called about when a task ends, in another thread."""
    on_commit: Callable[[int], None] = lambda images: None
    """Called after each micro-batch with its images."""
    results: list[ScoringResult] = field(default_factory=list)
    """All results, also of roll-outs that failed."""

    def score(self, step: Score, stop: Stop) -> ScoringResult:
        """Scores what a version has not predicted, or its errors again, until it is stopped.

        Raises:
            UserError: The version's files cannot be read.
            RefusedError: The version fails, or its files are not those that were promoted.
            MachineError: The machine fails repeatedly.
        """
        version, budget = step.version, self.budget
        files = scoring_runs.verified_files(self.client, version, self.on_message)
        run_id = self.runs.scoring_began(version, files, spark_session.master_name())
        most, size_bytes, before = budget.images, budget.size_bytes, 0

        def on_batch(done: int, of: int) -> None:
            nonlocal before
            self.on_commit(done - before)
            before = done
            budget.images = most - done  # here, as it is spent also if a fault follows
            self.on_progress(version.uri, done, of)
            if not step.retry:
                self.runs.micro_batch_scored(run_id, done)

        options: Any = {
            "settings": Settings(
                run_id=run_id,
                max_images=0 if most == math.inf else int(most),
                max_bytes=0 if size_bytes == math.inf else int(size_bytes),
                task_timeout=self.task_timeout,
                on_task=self.on_task,
            ),
            "stop": lambda: stop() or budget.is_spent(),
            "on_progress": on_batch,
        }
        if step.retry:
            self.on_message(f"{version.uri}: {step.reason}")
            self.client.set_tag(run_id, "mlproject.retried", step.reason)
            result = retry_errors(self.spark(), self.lake, version, step.retry, **options)
        else:
            options["complete"] = step.complete
            result = score_pending(self.spark(), self.lake, version, **options)
        budget.size_bytes = size_bytes - result.size_bytes
        self.results.append(result)
        scoring_runs.log(self.client, run_id, result)
        return result

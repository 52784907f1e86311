"""What a reconciliation of each alias would do and cost, from ids and metadata alone; no Spark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from mlflow import MlflowClient

from mlproject.errors import RefusedError, UserError
from mlproject.integrations import mlflow_tracking, spark_session
from mlproject.lake import location, snapshots
from mlproject.rollout import ledger
from mlproject.rollout.ledger import FAILED
from mlproject.rollout.runs import absence_ignored
from mlproject.scoring import coverage, micro_batches
from mlproject.scoring.coverage import NONE_STORED, Coverage, StoredErrors, Tables
from mlproject.versions.registry import resolve
from mlproject.versions.version import Version

NOTHING, SCORE, SWITCH, REFUSED, LOST = "nothing", "score", "switch", "refused", "lost"
RECENT = 20  # runs of a version among which the largest gives its rate


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast images were scored once."""

    images_per_second: float
    """Images a second, with the start of the workers."""
    images: int
    """Images that it was measured on."""
    source: str
    """The run that measured it, and what it scored."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """The images that one version has not predicted yet."""

    version: Version
    """The version."""
    coverage: Coverage
    """How much it has predicted."""
    size_bytes: int
    """Bytes of the images that are missing."""
    rate: Rate | None
    """How fast it was before; None = not measured."""
    stored: StoredErrors = NONE_STORED
    """Its errors that can change: `retry=errors` scores these images again."""

    @property
    def seconds(self) -> float | None:
        """How long the missing images would take; None = not known."""
        return self.coverage.missing / self.rate.images_per_second if self.rate else None


@dataclass(frozen=True, slots=True)
class AliasPlan:
    """What the next reconciliation of one alias or stage would do."""

    alias: str
    """URI of the alias or stage."""
    target: Backlog | None
    """Of the version that it names; None = it names none."""
    serving: Backlog | None
    """Of the serving version; None = no version serves."""
    action: str
    """`nothing`; `score` what is missing, then serve; `switch` the serving version at once;
    `refused`, as the version failed before; `lost`, as the alias names no version."""
    reason: str
    """Why."""
    left: int = 0
    """Images that the limits of the run would leave; time as it is estimated."""

    @property
    def is_behind(self) -> bool:
        """Whether the alias names another version than the serving version."""
        return self.target is not None and (
            self.serving is None or self.serving.version != self.target.version
        )

    @property
    def work(self) -> list[Backlog]:
        """What has to be scored: first by the serving version, then by the next."""
        wanted = [self.serving, self.target if self.action == SCORE else None]
        missing = [backlog for backlog in wanted if backlog and backlog.coverage.missing]
        return list({backlog.version: backlog for backlog in missing}.values())


@dataclass(frozen=True, slots=True)
class PlanResult:
    """What a run of `rescore` would do."""

    aliases: tuple[AliasPlan, ...]
    """One plan for each alias or stage, in the order of the run."""


def plan(
    pointers: Sequence[str] = (),
    lake: str = "lake",
    *,
    max_images: int = 0,
    max_bytes: int = 0,
    max_minutes: float = 0,
    retry: bool = False,
    verify: bool = False,
) -> PlanResult:
    """What `rescore` would do at each alias or stage, why, and what it would cost; does nothing.

    Args:
        pointers: URIs of aliases or stages, such as models:/photos@champion; empty = all in table
            rollouts.
        lake: Folder or URI of the tables.
        max_images: Images to score in a run; 0 = all.
        max_bytes: Bytes to read in a run; 0 = no limit.
        max_minutes: Minutes that a run scores; 0 = no limit.
        retry: Also rolls out versions that failed before.
        verify: true = counts every id, and compares with what the last counts in table rollouts and
            the rows added since say.

    Raises:
        UserError: There is no table of images, no alias, or a table cannot be read.
        RefusedError: With `verify`, the counts differ.
    """
    client = mlflow_tracking.connect()
    session = spark_session.master_name()
    found = alias_plans(
        client, location.locate(lake), pointers, session, retry=retry, verify=verify
    )
    return PlanResult(tuple(limited(found, max_images, max_bytes, max_minutes)))


def limited(
    plans: Sequence[AliasPlan], max_images: int = 0, max_bytes: int = 0, max_minutes: float = 0
) -> list[AliasPlan]:
    """The plans with what a run with these limits would leave of each; 0 = no limit."""
    images = max_images or math.inf
    size_bytes = max_bytes or math.inf
    seconds = 60 * max_minutes or math.inf
    found = []
    for one in plans:
        left = 0
        for backlog in one.work:
            count = backlog.coverage.missing
            costs = ((images, count), (size_bytes, backlog.size_bytes), (seconds, backlog.seconds))
            share = min(1.0, *(allowed / cost for allowed, cost in costs if cost))
            done = int(share * count)
            left += count - done
            images -= done
            size_bytes -= int(share * backlog.size_bytes)
            seconds -= share * (backlog.seconds or 0)
        found.append(replace(one, left=left))
    return found


def alias_plans(
    client: MlflowClient,
    lake: str,
    aliases: Sequence[str],
    session: str = "",
    *,
    retry: bool = False,
    verify: bool = False,
) -> list[AliasPlan]:
    """What the next reconciliation of each alias would do; reads no content and writes nothing.

    `session` is the master that would score, as `spark_session.master_name` gives it; empty = times
    are not estimated, and no run is searched for them. Without aliases: all in table `rollouts`.

    Raises:
        UserError: There is no table of images, no alias, or a table cannot be read.
        RefusedError: With `verify`, the counts differ.
    """
    snapshots.required(lake, "images")
    rows = ledger.read(lake)

    @cache  # aliases may share a version
    def count(version: Version) -> tuple[Coverage, int, StoredErrors]:
        def read(tables: Tables) -> tuple[Coverage, int, StoredErrors]:
            counted, pending = coverage.count(tables, version, rows.counted(version)), 0
            if verify:
                _require_same(version, counted, coverage.count_all(tables, version))
            if counted.missing:
                complete = rows.counted(version, complete=True)
                pending = micro_batches.pending_bytes(version, tables, complete)
            stored = coverage.stored_errors(tables, version) if counted.errors else NONE_STORED
            return counted, pending, stored

        return coverage.read_newest(lake, read)

    def backlog(version: Version) -> Backlog:
        counted, size_bytes, stored = count(replace(version, pointer=None))
        rate = _rate(client, version, session) if counted.missing and session else None
        return Backlog(version, counted, size_bytes, rate, stored)

    def plan_alias(alias: str) -> AliasPlan:
        now = rows.serving(alias)
        serving = backlog(now.version) if now else None
        try:
            version = resolve(client, alias)
        except UserError as error:
            return AliasPlan(alias, None, serving, LOST, str(error))
        if version.pointer is None:
            return AliasPlan(alias, None, serving, LOST, "it is a version, not an alias or stage")
        if version.pointer != alias:  # a stage in other letters
            return plan_alias(version.pointer)
        target, last = backlog(version), rows.last(version)
        failure = last.reason if last and last.state == FAILED and not retry else None
        return AliasPlan(alias, target, serving, *_action(target, serving, failure))

    return [plan_alias(alias) for alias in rows.aliases(aliases)]


def _require_same(version: Version, counted: Coverage, whole: Coverage) -> None:
    """Raises RefusedError where counts from what was added since differ from a whole count."""
    if counted.counts != whole.counts:
        before, found = (
            f"{one.predicted} of {one.images} images predicted, {one.errors} with an error"
            for one in (counted, whole)
        )
        raise RefusedError(
            f"{version.uri}: {before}, by table rollouts and what was added since; but {found}, "
            "by a count of every id. Run rescore -P verify=true, which records the latter"
        )


def _action(target: Backlog, serving: Backlog | None, failure: str | None) -> tuple[str, str]:
    """The action of a plan and its reason, given why the target failed before."""
    if failure is not None:
        return REFUSED, f"failed before: {failure}"
    serves = serving is not None and serving.version == target.version
    if target.coverage.missing:
        moved = f"moved from {serving.version.uri}" if serving else "no version serves yet"
        return SCORE, "new images" if serves else moved
    complete = "every image is predicted"
    if serves:
        return NOTHING, complete
    return SWITCH, f"moved from {serving.version.uri}; {complete}" if serving else complete


def _rate(client: MlflowClient, version: Version, session: str) -> Rate | None:
    """How fast a version, or else one of its framework, was in such a session; None = not measured.

    Of its last runs the one with most images counts, as the start of the workers weighs least.
    """
    framework = ""
    with absence_ignored():
        found = client.get_model_version(version.name, str(version.version))
        framework = found.tags.get("framework", "")
    searches = {version.uri: f"tags.`mlproject.model_id` = '{version.model_id}'"}
    if framework:
        searches[f"a {framework} version"] = f"tags.`mlproject.framework` = '{framework}'"
    experiments = [found.experiment_id for found in client.search_experiments()]
    for subject, condition in searches.items():
        runs = client.search_runs(
            experiments,
            f"{condition} AND tags.`mlproject.session` = '{session}' AND metrics.images > 0",
            max_results=RECENT,
            order_by=["attributes.start_time DESC"],
        )
        if runs:
            best = max(runs, key=lambda run: run.data.metrics["images"])
            metrics, images = best.data.metrics, int(best.data.metrics["images"])
            source = f"{images} images by {subject} in run {best.info.run_id[:8]}, {session}"
            return Rate(metrics["images_per_second"], images, source)
    return None

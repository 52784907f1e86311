"""What following each pointer would do, and what it would cost: ids and metadata only, no Spark."""

from dataclasses import dataclass

from mlflow import MlflowClient

from mlproject.errors import UserError
from mlproject.lake.snapshots import Snapshot
from mlproject.rollout import ledger, runs
from mlproject.rollout.ledger import FAILED, Entry, Page
from mlproject.rollout.runs import Rate
from mlproject.scoring import coverage
from mlproject.scoring.coverage import Coverage
from mlproject.versions.registry import Version, resolve

NOTHING, SCORE, SWITCH, REFUSED, LOST = "nothing", "score", "switch", "refused", "lost"


@dataclass(frozen=True, slots=True)
class Missing:
    """What one version has to answer yet."""

    version: Version
    """The version."""
    covered: Coverage
    """How much it has answered."""
    size_bytes: int
    """Bytes of the images that it has not."""
    rate: Rate | None
    """How fast it was before; None = nobody measured."""

    @property
    def seconds(self) -> float | None:
        """How long it would take; None = nobody knows."""
        return self.covered.missing / self.rate.images_per_second if self.rate else None


@dataclass(frozen=True, slots=True)
class Plan:
    """What the next look at one pointer would do."""

    pointer: str
    """The pointer as a URI."""
    target: Missing | None
    """The version behind it; None = it names none."""
    readers: Missing | None
    """The version that readers see; None = none."""
    action: str
    """`nothing`; `score` what is missing, which lets readers switch where they are behind;
    `switch` at once; `refused`, as the version has failed before; `lost`, as it names none."""
    why: str
    """Why, in words."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds one run over all its pointers; 0 = no limit."""

    images: int = 0
    """Images to score."""
    size_bytes: int = 0
    """Bytes to read."""
    minutes: float = 0
    """Minutes of scoring."""


def is_behind(plan: Plan) -> bool:
    """Whether the pointer names a version that its readers do not see."""
    return plan.target is not None and (
        plan.readers is None or plan.readers.version != plan.target.version
    )


def work(plan: Plan) -> list[Missing]:
    """What a plan has to score: first for the version that readers see, then for the next."""
    wanted = [plan.readers, plan.target if plan.action == SCORE else None]
    return list(
        {found.version: found for found in wanted if found and found.covered.missing}.values()
    )


def left(plans: list[Plan], limits: Limits) -> list[int]:
    """Images that a run with these limits would leave, for each plan; time as it is estimated."""
    images, size_bytes, seconds = limits.images, limits.size_bytes, 60 * limits.minutes
    found = []
    for plan in plans:
        rest = 0
        for missing in work(plan):
            count = missing.covered.missing
            share = 1.0
            if limits.images:
                share = min(share, images / count)
            if limits.size_bytes and missing.size_bytes:
                share = min(share, size_bytes / missing.size_bytes)
            if limits.minutes and missing.seconds:
                share = min(share, seconds / missing.seconds)
            done = int(share * count)
            rest += count - done
            images -= done if limits.images else 0
            size_bytes -= int(share * missing.size_bytes) if limits.size_bytes else 0
            seconds -= share * (missing.seconds or 0) if limits.minutes else 0
        found.append(rest)
    return found


def plan(
    client: MlflowClient, lake: str, pointers: list[str], session: str = "", *, retry: bool = False
) -> list[Plan]:
    """What the next look at each pointer would do; reads no content and writes nothing.

    Args:
        client: The registry and tracking server.
        lake: As `lakes.locate` gives it.
        pointers: Pointer URIs; empty = all that the ledger knows.
        session: The kind of Spark session that would do it, as `session.kind` gives it; empty =
            nobody wants to know how long it takes, and no run is searched for it.
        retry: Whether versions that have failed are tried again.

    Raises:
        UserError: There is no table of images, no pointer, or a table cannot be read.
    """
    images = coverage.newest_images(lake)
    page = ledger.read(lake)
    planner = _Planner(client, lake, page, images, session)
    return [planner.plan(pointer, retry) for pointer in page.wanted(pointers)]


class _Planner:
    """What the plans of all pointers share: each version is counted once."""

    def __init__(
        self, client: MlflowClient, lake: str, page: Page, images: Snapshot, session: str
    ) -> None:
        self.client, self.lake, self.page = client, lake, page
        self.images, self.session = images, session
        self._counted: dict[tuple[str, int, str], tuple[Coverage, int]] = {}

    def plan(self, pointer: str, retry: bool) -> Plan:
        now = self.page.serving(pointer)
        readers = self._missing(now.version) if now else None
        try:
            version = resolve(self.client, pointer)
        except UserError as error:
            return Plan(pointer, None, readers, LOST, str(error))
        if version.pointer is None:
            return Plan(pointer, None, readers, LOST, "one version, which never moves")
        if version.pointer != pointer:  # a stage in other letters
            return self.plan(version.pointer, retry)
        target = self._missing(version)
        return Plan(pointer, target, readers, *self._action(target, now, retry))

    def _action(self, target: Missing, now: Entry | None, retry: bool) -> tuple[str, str]:
        last = self.page.last(target.version)
        if last and last.state == FAILED and not retry:
            return REFUSED, f"failed before: {last.reason}"
        serves = now is not None and now.version == target.version
        if target.covered.missing:
            moved = f"it moved from {now.version.uri}" if now else "no version serves it yet"
            return SCORE, "images came" if serves else moved
        answered = "every image is answered"
        if serves:
            return NOTHING, answered
        return SWITCH, f"it moved from {now.version.uri}; {answered}" if now else answered

    def _missing(self, version: Version) -> Missing:
        key = (version.name, version.version, version.model_id)
        if key not in self._counted:
            self._counted[key] = coverage.count(self.lake, version, self.images)
        covered, size_bytes = self._counted[key]
        rate = None
        if covered.missing and self.session:
            rate = runs.rate(self.client, version, self.session)
        return Missing(version, covered, size_bytes, rate)

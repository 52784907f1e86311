"""Leases: of two watches of a lake one works on an alias or source at a time. See decision 24.

Nothing is wrong without them: commits are compare-and-sets (decision 3). They save work.

A lease is a number in the log of table `leases`, an application transaction for each subject. Its
holder raises it every `interval_s` while it works, each time by compare-and-set; a second
transaction notes the number at which it was released. So a renewal is a commit without a data
file, and an idle watch commits nothing. A row names the holder, and is written when that changes.
"""

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from mlproject.errors import MlprojectError
from mlproject.lake import commits, queries, snapshots
from mlproject.lake.location import is_local
from mlproject.lake.queries import quoted
from mlproject.lake.schemas import SCHEMAS
from mlproject.lake.snapshots import counter, open_table
from mlproject.service.processes import Process, has_ended, this_process
from mlproject.storage.local_files import local_path

INTERVALS = 3  # in which a lease has to change, else it is taken over
SHORTEST_S = 5  # between two renewals: a commit each


@dataclass(frozen=True, slots=True)
class Lease:
    """The lease of one subject, as a version of the table has it."""

    number: int
    """Raised by each renewal and by each new holder; -1 = nobody has ever held it."""
    is_released: bool
    """Whether its last holder has released it."""
    holder: str
    """The id of the watch that took it last."""
    process: Process
    """The process of that watch."""
    interval_s: float
    """Seconds in which that watch renews it."""
    since: datetime
    """When that watch took it, by its clock."""


def subject_of(source: str) -> str:
    """The subject of the lease of a source, the same however it is written."""
    return str(local_path(source)) if is_local(source) else source.partition("?")[0].rstrip("/")


def is_free(lease: Lease | None, unchanged_s: float, own_interval_s: float, *, ended: bool) -> bool:
    """Whether a watch may take a lease that is not its own.

    Args:
        lease: As it is now; None = nobody has held it.
        unchanged_s: For how long this watch has seen the same number, by its own clock.
        own_interval_s: The interval of this watch.
        ended: Whether the holder's process is known to have ended.
    """
    if lease is None or lease.is_released or ended:
        return True
    return unchanged_s >= INTERVALS * max(lease.interval_s, own_interval_s)


class Leases:
    """The leases of a lake, for one watch."""

    def __init__(
        self,
        lake: str,
        interval: float,
        on_message: Callable[[str], None],
        is_late: Callable[[], bool] = lambda: False,
        waits_for: dict[str, str] | None = None,
    ) -> None:
        """For a watch that hangs `is_late`: its leases are not renewed.

        What other watches work on is noted in `waits_for`, with these watches.
        """
        self.interval_s = max(interval, SHORTEST_S)
        self._lake, self._path = lake, f"{lake}/leases"
        self._id, self._is_late, self._on_message = uuid.uuid4().hex, is_late, on_message
        self._waits_for = {} if waits_for is None else waits_for
        self._held: dict[str, int] = {}  # the numbers of what this watch works on
        self._seen: dict[str, tuple[int, float]] = {}  # numbers, and since when they are the same
        self._reported: set[tuple[str, str]] = set()
        self._lock = threading.Lock()  # of the numbers, and of the commits that change them

    @contextlib.contextmanager
    def held(self, subject: str) -> Iterator[bool]:
        """Holds the lease of an alias, stage or source while the block runs.

        It gives False where another watch holds it: then the block is to do nothing.

        Raises:
            UserError: The table cannot be read.
            MachineError: It cannot be written.
        """
        if not self._take(subject):
            yield False
            return
        ended = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(subject, ended), name="lease")
        renewing.start()
        try:
            yield True
        finally:
            ended.set()
            renewing.join()
            with contextlib.suppress(MlprojectError, OSError):  # it is taken over in time
                self._release(subject)

    def may_go_on(self, subject: str) -> bool:
        """Whether no other watch has taken a lease that this one has taken; asks the table."""
        with self._lock:
            number = self._held.get(subject)
            return number is None or counter(open_table(self._path), _name(subject)) == number

    def observe(self, subjects: Sequence[str]) -> None:
        """Notes the numbers of leases, so that they need not be waited for later."""
        if snapshots.is_table(self._path):
            table = open_table(self._path)
            for subject in subjects:
                self._unchanged_s(subject, counter(table, _name(subject)))

    def _take(self, subject: str) -> bool:
        since = snapshots.to_append(self._lake, "leases", _name(subject))
        lease = _read(since, subject)
        unchanged_s = self._unchanged_s(subject, since.fills)
        is_own = lease is not None and lease.holder == self._id
        ended = lease is not None and has_ended(lease.process)
        if lease and not is_own and not is_free(lease, unchanged_s, self.interval_s, ended=ended):
            self._wait_for(subject, lease)
            return False
        if is_own:
            taken = self._commit(subject, since.fills, {_name(subject): since.fills + 1})
        else:
            taken = commits.append_rows(self._row(subject, since.fills + 1), since) is not None
        if taken:
            self._held[subject] = since.fills + 1
            self._waits_for.pop(subject, None)
        return taken

    def _renew(self, subject: str, ended: threading.Event) -> None:
        while not ended.wait(self.interval_s):
            if self._is_late():
                continue
            with contextlib.suppress(MlprojectError, OSError), self._lock:  # the next one may work
                number = self._held[subject]
                if not self._commit(subject, number, {_name(subject): number + 1}):
                    return  # another watch has taken it
                self._held[subject] = number + 1

    def _release(self, subject: str) -> None:
        with self._lock:
            number = self._held.pop(subject)
            self._commit(subject, number, {_name(subject, "released"): number})

    def _commit(self, subject: str, number: int, counters: dict[str, int]) -> bool:
        """Commits counters while the lease has a number; False = it has another one now."""
        base, mark = open_table(self._path), uuid.uuid4().hex
        while counter(base, _name(subject)) == number:
            done = commits.commit(self._path, base, [], counters, mark=mark)
            if isinstance(done, int):
                return True
            base = done
        return False

    def _unchanged_s(self, subject: str, number: int) -> float:
        """Seconds of this machine's clock in which this watch has seen no other number."""
        now = time.monotonic()
        if self._seen.get(subject, (None, now))[0] != number:
            self._seen[subject] = (number, now)
        return now - self._seen[subject][1]

    def _wait_for(self, subject: str, lease: Lease) -> None:
        since = f"{lease.since:%Y-%m-%dT%H:%M:%SZ}"
        other = f"{lease.process.host}, process {lease.process.pid}, since {since}"
        self._waits_for[subject] = other
        if (subject, lease.holder) not in self._reported:
            self._reported.add((subject, lease.holder))
            self._on_message(f"{subject}: another watch works on it ({other}); waiting")

    def _row(self, subject: str, number: int) -> pa.Table:
        own = this_process()
        row = {
            "subject": subject,
            "number": number,
            "holder": self._id,
            "host": own.host,
            "space": own.space,
            "pid": own.pid,
            "interval_s": self.interval_s,
            "at": datetime.now(UTC),
        }
        return pa.Table.from_pylist([row], schema=SCHEMAS["leases"])


def _name(subject: str, event: str = "lease") -> str:
    """The application transaction of a subject."""
    return f"{event}:{subject}"


def _read(since: snapshots.Snapshot, subject: str) -> Lease | None:
    """The lease of a subject in a version of the table; None = nobody has held it."""
    sql = f"SELECT * FROM leases WHERE subject = {quoted(subject)} ORDER BY number DESC LIMIT 1"
    rows = queries.query(since.lake, sql, leases=since).to_pylist()
    if not rows:
        return None
    row, table = rows[0], open_table(since.path, since.version)
    return Lease(
        since.fills,
        counter(table, _name(subject, "released")) == since.fills,
        row["holder"],
        Process(row["host"], row["space"], row["pid"]),
        row["interval_s"],
        row["at"],
    )

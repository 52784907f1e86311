"""Work on several files at once, so that the ways to their server and back overlap."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

REMOTE, LOCAL = 32, 4  # files of a task at once, on a server and on this machine's disks
WINDOW_BYTES = 64 * 1024**2  # bytes of these files in memory, at most, or one file


def overlapped(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    size_of: Callable[[Item], int],
    *,
    at_once: int,
) -> Iterator[Result]:
    """The results of a function, in the order of the items; it runs in threads.

    Args:
        function: Called with each item.
        items: Items.
        size_of: Bytes in memory for an item until its result is taken.
        at_once: Items for which it runs, or has run, before their results are taken.
    """
    begun: deque[tuple[Future[Result], int]] = deque()
    held = 0
    with ThreadPoolExecutor(at_once) as pool:
        try:
            for item in items:
                size = size_of(item)
                while begun and (len(begun) >= at_once or held + size > WINDOW_BYTES):
                    future, taken = begun.popleft()
                    held -= taken
                    yield future.result()
                begun.append((pool.submit(function, item), size))
                held += size
            while begun:
                yield begun.popleft()[0].result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

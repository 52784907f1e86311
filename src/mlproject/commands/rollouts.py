"""Printing of roll-outs, for `rescore` and `watch`."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlproject.commands import console, log_lines

if TYPE_CHECKING:
    from mlproject.rollout.reconciliation import RolloutResult


@contextmanager
def printed() -> Iterator[dict[str, Any]]:
    """The callbacks of `rescore` and `watch` by their names: they print progress and results."""
    bars: dict[str, console.OnProgress] = {}  # of the version that is being scored
    with ExitStack() as stack:

        def on_progress(version: str, done: int, total: int) -> None:
            if version not in bars:
                close()
                [bars[version]] = stack.enter_context(console.progress(f"score {version}"))
            bars[version](done, total)

        def close() -> None:
            stack.close()
            bars.clear()

        def on_rollout(result: "RolloutResult") -> None:
            close()
            _print(result)

        def on_fault(message: str) -> None:
            close()
            log_lines.write(message, "error")

        yield {
            "on_progress": on_progress,
            "on_message": console.print_message,
            "on_fault": on_fault,
            "on_rollout": on_rollout,
        }


def _print(result: "RolloutResult") -> None:
    alias, scored = result.version.pointer, result.scored
    fields: dict[str, Any] = {"alias": alias, "version": result.version.uri}
    counts: dict[str, Any] = asdict(scored) if scored else {}
    log_lines.write(f"{alias}: {_scored(result)}", **fields, **counts)
    missing = result.coverage.missing
    log_lines.write(f"{alias}: {_serving(result)}", **fields, state=result.state, missing=missing)
    if result.trouble:
        log_lines.write(f"{alias}: {result.trouble}", "error", **fields)


def _scored(result: "RolloutResult") -> str:
    scored = result.scored
    if scored and (scored.images or scored.unreadable):
        return scored.summary()
    return "nothing was scored" if result.coverage.missing else "nothing to score"


def _serving(result: "RolloutResult") -> str:
    now, missing = result.version.uri, result.coverage.missing
    if result.state == "scoring":
        serves = f"{result.before.uri} serves" if result.before else "no version serves"
        return f"{serves}, as before; {now} has {missing} images left to score"
    if result.before is None:
        return f"{now} serves now"
    if result.before == result.version:
        left = f"; {missing} images left to score" if missing else ""
        return f"{now} serves, as before{left}"
    return f"{now} serves now instead of {result.before.uri}"

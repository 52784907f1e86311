"""Moves an alias, or a stage, to a model version that has passed the gates.

Where the alias or stage has a serving version, the new version is compared with it on images of the
lake first. A version that is refused ends the command with exit code 3.

mlflow run . -e promote --env-manager local -P model=models:/photos/3
"""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import mlproject
from mlproject.commands import console

if TYPE_CHECKING:
    from mlproject.gates.promotion import Promotion


def run(*, json: bool = False, **options: Any) -> None:
    """Promotes and prints the verdicts of the gates.

    Args:
        json: true = JSON on stdout instead of tables.
    """
    from mlproject.gates.promotion import PromotionRefusedError

    try:
        with (
            console.stdout_to_stderr() if json else nullcontext(),
            console.stopped_by_signals() as stopped,
            console.progress("score the sample") as [on_progress],
        ):
            promotion = mlproject.promote(**options, stop=stopped.is_set, on_progress=on_progress)
    except PromotionRefusedError as error:
        _print(error.promotion, json)
        raise
    _print(promotion, json)


def _print(promotion: "Promotion", json: bool) -> None:
    from mlproject.gates import summary

    if json:
        facts: dict[str, Any] = {"pointer": promotion.pointer, "before": promotion.before}
        facts |= {"version": promotion.version.uri, "moved": promotion.moved}
        facts |= {"gate": promotion.outcome, **summary.json_values(promotion.results)}
        console.print_json(facts)
        return
    if promotion.outcome != "off":
        for columns, rows in summary.tables(promotion.results):
            console.print_table(columns, rows)
            print()
    if promotion.outcome != "refused":
        dry = "" if promotion.moved else " (dry run: nothing was moved)"
        print(f"{promotion.pointer}: {promotion.before} -> {promotion.version.uri}{dry}")

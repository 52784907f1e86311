"""Rolls out the version behind each alias or stage: scores what is missing, then lets it serve.

mlflow run . -e rescore --env-manager local -P pointers=models:/photos@champion
"""

import inspect
from typing import Any

import mlproject
from mlproject.commands import console, log_lines, rollouts
from mlproject.commands import plan as plan_command


def run(
    *, log: log_lines.Format = "text", plan: bool = False, json: bool = False, **options: Any
) -> None:
    """Rolls out each alias and prints its result.

    Args:
        log: Lines for a person, or one JSON object a line: text or json.
        plan: true = print what would be done, and do nothing.
        json: true = JSON on stdout instead of tables, with plan=true.
    """
    if plan:
        from mlproject.scoring import scoring_runs  # it takes seconds to import

        names = inspect.signature(mlproject.plan).parameters
        options["retry"] = scoring_runs.parse_retry(options["retry"]).versions
        plan_command.run(json=json, **{name: options[name] for name in names})
        return
    with (
        console.logged(log, "rescore"),
        console.stopped_by_signals() as stopped,
        rollouts.printed() as callbacks,
    ):
        result = mlproject.rescore(**options, stop=stopped.is_set, **callbacks)
        if result.stopped:
            raise KeyboardInterrupt

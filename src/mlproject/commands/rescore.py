"""Rolls out the version behind each alias or stage: scores what is missing, then lets it serve.

mlflow run . -e rescore --env-manager local -P pointers=models:/photos@champion
"""

import inspect
from typing import Any

import mlproject
from mlproject.commands import console, rollouts
from mlproject.commands import plan as plan_command


def run(*, plan: bool = False, json: bool = False, **options: Any) -> None:
    """Rolls out each alias and prints its result.

    Args:
        plan: true = print what would be done, and do nothing.
        json: true = JSON on stdout instead of tables, with plan=true.
    """
    if plan:
        from mlproject.scoring import scoring_runs  # it takes seconds to import

        names = inspect.signature(mlproject.plan).parameters
        options["retry"] = scoring_runs.parse_retry(options["retry"]).versions
        plan_command.run(json=json, **{name: options[name] for name in names})
        return
    with console.stopped_by_signals() as stopped, rollouts.printed() as callbacks:
        result = mlproject.rescore(**options, stop=stopped.is_set, **callbacks)
    if result.stopped:
        raise KeyboardInterrupt

"""The errors that mlproject raises on purpose, each with the exit code a verb ends with.

A message is one line: what failed, the value, what exists, and the next command.
Faults of single images are data (an `error` code in a table), never one of these.
"""


def first_line(error: Exception) -> str:
    """The first words of an error, in a line that is never empty; of MLflow's without its code."""
    words = str(error).strip().removeprefix(f"{getattr(error, 'error_code', '')}: ")
    return (words.splitlines() or [type(error).__name__])[0].strip()


class MlprojectError(Exception):
    """Base of every error that a person can act on."""

    exit_code = 2


class UserError(MlprojectError):
    """Something that the caller named or set is wrong or absent."""


class RefusedError(MlprojectError):
    """A check said no: nothing was registered, moved or switched."""

    exit_code = 3

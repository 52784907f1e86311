"""The errors that mlproject raises on purpose, each with the exit code of the command.

A message is one line: what failed, the value, what exists, and the next command.
Faults of single images are data (an `error` code in a table), never one of these.
"""

from mlproject.masking import mask


def first_line(error: Exception) -> str:
    """The first line of an error, never empty and without secrets; of MLflow's without its code.

    A line that ends with a colon announces the reason, which is the last line.
    """
    text = str(error).removeprefix(f"{getattr(error, 'error_code', '')}: ")
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    announced = lines[0].endswith(":") and lines[1:]
    return mask(f"{lines[0]} {lines[-1]}" if announced else lines[0])


class MlprojectError(Exception):
    """Base of every error that a person can act on; its message contains no secret."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(mask(message))


class UserError(MlprojectError):
    """Something that the caller named or set is wrong or absent."""


class RefusedError(MlprojectError):
    """A check failed: nothing was registered, moved or made the serving version."""

    exit_code = 3


class MachineError(MlprojectError):
    """The machine failed: its memory, a device, a file system or the network. Run it again."""

    exit_code = 1


def require_at_least(least: float, **options: float) -> None:
    """Raises UserError for the first option that is below a bound, or not a number."""
    for name, value in options.items():
        if not value >= least:
            raise UserError(f"{name}={value} is below {least}")


def require_positive(**options: float) -> None:
    """Raises UserError for the first option that is not above 0."""
    for name, value in options.items():
        if not value > 0:
            raise UserError(f"{name}={value} is not above 0")


def require_share(**options: float) -> None:
    """Raises UserError for the first option that is not a share, 0..1."""
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name}={value} is not between 0 and 1")

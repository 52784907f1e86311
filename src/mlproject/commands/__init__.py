"""The commands: each calls one public function of `mlproject` and prints its result.

The options of a command are the parameters of its function (see `parameters`).
"""

__all__ = ["console", "parameters"]

"""The console command `mlproject COMMAND`, and what the launchers in `pipelines/` call."""

import atexit
import gc
import importlib
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click

import mlproject
from mlproject.commands import console, parameters

# In the order of their use.
COMMANDS = (
    *("demo", "ingest", "train", "register", "quantize", "promote", "score", "plan", "rescore"),
    *("watch", "health", "sources", "history", "replay", "report", "erase", "maintain"),
)


class Command(click.Command):
    """The command of a module in `commands`: its docstring is the help, its `run` the work.

    Options are the parameters of `run` and, where `run` takes `**options`, those of the public
    function of the same name. They are made when they are needed: the function's module may take
    seconds to import.
    """

    def __init__(self, name: str, module: ModuleType) -> None:
        paragraphs = (module.__doc__ or "").strip().split("\n\n")
        # click keeps the lines of a paragraph that starts with \b.
        text = "\n\n".join(f"\b\n{one}" if "mlflow run" in one else one for one in paragraphs)
        super().__init__(name, help=text, short_help=paragraphs[0], callback=module.run)
        self.module = module

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options, and `--help`."""
        if not self.params:
            thresholds = gc.get_threshold()
            gc.set_threshold(100_000)  # imports leave no garbage; to look for it takes 0.2 s
            self.params += self.options()
            gc.set_threshold(*thresholds)
        return super().get_params(ctx)

    def options(self) -> list[click.Option]:
        """The options of the public function, then those of the command alone."""
        function = getattr(mlproject, self.name or "", None)
        own = list(parameters.options(self.module.run))
        return [*parameters.options(function), *own] if function else own

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Replaces the old name of an option by its new one, with a warning.

        Before that a command that needs Spark begins to start it: to make the options imports
        MLflow, which takes as long.
        """
        # Not to complete a command line in a shell.
        if hasattr(self.module, "prepare") and "--help" not in args and not ctx.resilient_parsing:
            self.module.prepare(args)
        for old, new in getattr(self.module, "RENAMED", {}).items():
            pattern = re.compile(rf"--{old}(?==|$)")
            if any(map(pattern.match, args)):
                click.echo(f"{ctx.command_path}: {old} is now called {new}", err=True)
                args = [pattern.sub(f"--{new}", arg, count=1) for arg in args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> None:
        """Does the work; an error that is no bug is one line and an exit code."""
        console.silence_libraries()
        with console.exit_codes(ctx.command_path):
            super().invoke(ctx)


class Commands(click.Group):
    """All commands; a module is imported when its command is used or listed."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; words that are none of its options are an error in one line."""
        console.mask_output()
        with console.exit_codes(ctx.command_path):
            console.complete_environment()
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        return Command(cmd_name, importlib.import_module(f"mlproject.commands.{cmd_name}"))


@click.command(cls=Commands, context_settings={"max_content_width": console.WIDTH})
def main() -> None:
    """Keeps a table of image predictions up to date with an image folder and an MLflow registry.

    Each command is an entry point of the MLflow project too: mlflow run . -e COMMAND
    """
    # At its end Python would look for garbage in all that was imported, for 0.3 s.
    atexit.register(gc.freeze)


def launch(file: str) -> None:
    """Runs the command of a launcher in `pipelines/`, with this process's arguments."""
    # MLflow calls the entry point that it runs by default `main`.
    name = "demo" if Path(file).stem == "main" else Path(file).stem
    with console.exit_codes(f"mlproject {name}"):
        console.enter_working_directory()
    main([name, *sys.argv[1:]], prog_name="mlproject")


if __name__ == "__main__":
    main(prog_name="mlproject")

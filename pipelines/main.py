"""Runs the command `demo` for the entry point that MLflow takes by default."""

from mlproject.cli import launch

if __name__ == "__main__":
    launch(__file__)

"""Runs the command `sources` for the entry point of that name."""

from mlproject.cli import launch

if __name__ == "__main__":
    launch(__file__)

"""Packages of the distribution; everything else stands in pyproject.toml.

The files of `models/`, which MLflow executes, become the package `mlproject.models` of the wheel.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages("src"), "mlproject.models"],
    package_dir={"": "src", "mlproject.models": "models"},
)

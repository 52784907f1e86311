"""Every example of README and docs ends with exit code 0, on a lake like the demo's."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import PROJECT, THOROUGH
from tests.support.examples import OTHERS, PAGES, RUN, Example, examples

RUN_BY_MLFLOW = ("MLproject", "conda.yaml", "models", "pipelines", "src")
RUN_EXAMPLES = {
    str(page.relative_to(PROJECT)): found
    for page in PAGES
    if (found := [one for one in examples(page) if one.language in RUN and one.times])
}


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}
    return subprocess.run(
        words,
        cwd=folder,
        env={
            **inherited,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def run_example(folder: Path, example: Example) -> subprocess.CompletedProcess[str]:
    if example.language == "python":
        return run(folder, sys.executable, "-c", example.code)
    return run(folder, "bash", "-euo", "pipefail", "-c", example.code)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, Path]:
    """A folder with the project and a lake, and a copy of what examples change in it."""
    folder, kept = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("kept") / "demo"
    for part in RUN_BY_MLFLOW:
        copy = shutil.copytree if (PROJECT / part).is_dir() else shutil.copy
        copy(PROJECT / part, folder / part)
    shutil.copytree(PROJECT / "tests", folder / "tests")
    made = run(folder, sys.executable, "-m", "tests.support.demo_lake")
    assert made.returncode == 0, made.stdout[-5000:]
    shutil.copytree(folder, kept, ignore=shutil.ignore_patterns(*RUN_BY_MLFLOW, "tests", "mlruns"))
    return folder, kept


@pytest.fixture
def folder(demo) -> Path:
    """The folder as the demo left it. Its path is the same for each test: tables name it."""
    folder, kept = demo
    shutil.rmtree(folder / "lake")
    shutil.rmtree(folder / "drawn_images")
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    return folder


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_EXAMPLES)
def test_every_example_of_a_page_ends_with_exit_code_zero(page, folder):
    for example in RUN_EXAMPLES[page]:
        times = example.times if THOROUGH else min(example.times, 4)
        with ThreadPoolExecutor(2) as pool:
            ran = list(pool.map(lambda _, e=example: run_example(folder, e), range(times)))
        failed = [one for one in ran if one.returncode != 0]
        assert not failed, f"{page}:{example.line}: {failed[0].returncode}\n{failed[0].stdout}"


@pytest.mark.spark
@pytest.mark.slow
def test_predictions_read_with_and_without_spark_are_the_same(folder):
    with_spark = example("docs/how-to/read-predictions.md", "spark")
    without = example("docs/tutorial/index.md", "QueryBuilder")
    counts = [
        set(re.findall(r"\b(red|green|blue)\W+(\d+)\b", run_example(folder, one).stdout))
        for one in (with_spark, without)
    ]
    assert 3 == len(counts[0])
    assert counts[0] == counts[1]


def example(page: str, word: str) -> Example:
    return next(one for one in RUN_EXAMPLES[page] if word in one.code)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_block_names_its_language_so_that_examples_are_found(page):
    text = page.read_text(encoding="utf-8")
    found = examples(page)
    assert text.count("\n```") == 2 * len(found)
    assert set() == {one.language for one in found} - {*RUN, *OTHERS}
    for one in found:
        assert re.fullmatch(r"|\d+ times|not run: .+", one.marker), one


def test_the_examples_that_read_without_spark_run_twenty_times():
    read = [one for page in RUN_EXAMPLES.values() for one in page]
    readers = [one for one in read if "QueryBuilder" in one.code]
    assert readers
    assert {20} == {one.times for one in readers}

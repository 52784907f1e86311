"""Every example of README and docs ends with exit code 0, on a lake like the demo's.

`mlflow run` is a program that asks a server, but in `make test-thorough`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.conftest import PROJECT, THOROUGH
from tests.support import command_server
from tests.support.examples import OTHERS, PAGES, RUN, Example, examples
from tests.support.lakes import frame

RUN_BY_MLFLOW = ("MLproject", "conda.yaml", "models", "pipelines", "src")
RUN_EXAMPLES = {
    str(page.relative_to(PROJECT)): found
    for page in PAGES
    if (found := [one for one in examples(page) if one.language in RUN and one.times])
}


def environment(folder: Path, *programs: Path) -> dict[str, str]:
    """The environment of a person; the programs in `programs` come before others."""
    inherited = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}
    path = [*map(str, programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {
        **inherited,
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": f"{folder / 'src'}{os.pathsep}{folder}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


@dataclass(frozen=True)
class Demo:
    """A folder with the project and a lake."""

    folder: Path
    environment: dict[str, str]

    def run(self, example: Example) -> subprocess.CompletedProcess[str]:
        """Runs an example in the folder."""
        bash = ("bash", "-euo", "pipefail", "-c", example.code)
        return subprocess.run(
            (sys.executable, "-c", example.code) if example.language == "python" else bash,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Iterator[tuple[Demo, Path]]:
    """The demo, and a copy of what examples change in it."""
    folder, kept = tmp_path_factory.mktemp("demo"), tmp_path_factory.mktemp("kept") / "demo"
    for part in (*RUN_BY_MLFLOW, "tests"):
        copy = shutil.copytree if (PROJECT / part).is_dir() else shutil.copy
        copy(PROJECT / part, folder / part)
    with command_server.running(folder, environment(folder)) as programs:
        unchanged = shutil.ignore_patterns(*RUN_BY_MLFLOW, "tests", "mlruns")
        shutil.copytree(folder, kept, ignore=unchanged)
        yield Demo(folder, environment(folder, *([] if THOROUGH else [programs]))), kept


@pytest.fixture
def demo(made) -> Demo:
    """The demo as it was made. Its path is the same for each test: tables name it."""
    demo, kept = made
    shutil.rmtree(demo.folder / "lake")
    shutil.rmtree(demo.folder / "drawn_images")
    shutil.copytree(kept, demo.folder, dirs_exist_ok=True)
    return demo


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_EXAMPLES)
def test_every_example_of_a_page_ends_with_exit_code_zero(page, demo):
    for example in RUN_EXAMPLES[page]:
        times = example.times if THOROUGH else min(example.times, 4)
        with ThreadPoolExecutor(2) as pool:
            ran = list(pool.map(lambda _, e=example: demo.run(e), range(times)))
        failed = [one for one in ran if one.returncode != 0]
        assert not failed, f"{page}:{example.line}: {failed[0].returncode}\n{failed[0].stdout}"


@pytest.mark.spark
@pytest.mark.slow
def test_predictions_read_with_and_without_spark_are_the_same(demo):
    with_spark = example("docs/how-to/read-predictions.md", "spark")
    without = example("docs/tutorial/index.md", "QueryBuilder")
    counts = [
        set(re.findall(r"\b(red|green|blue)\W+(\d+)\b", demo.run(one).stdout))
        for one in (with_spark, without)
    ]
    assert 3 == len(counts[0])
    assert counts[0] == counts[1]


@pytest.mark.spark
@pytest.mark.slow
def test_the_readmes_commands_for_ready_weights_run(demo, shared):
    (example,) = [one for one in examples(PROJECT / "README.md") if "-e register" in one.code]
    weights = next((shared / "weights" / "keras").glob("*imagenet_ptq.weights.h5"))
    (demo.folder / "photos").mkdir()
    for path in sorted((shared / "imagenet-sample" / "images").iterdir())[:4]:
        shutil.copy(path, demo.folder / "photos")
    # The download of weights needs a network: the same weights as a file stand in for it.
    code = example.code.replace("weights=imagenet", f"weights={weights}")
    done = demo.run(replace(example, code=code))
    assert 0 == done.returncode, done.stdout
    images, predictions = (
        frame(str(demo.folder / "lake"), name) for name in ("images", "predictions")
    )
    scored = predictions[predictions.model_name == "imagenet"]
    assert images.image_id.nunique() == len(scored)


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

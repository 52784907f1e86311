"""The architecture, executed."""

import argparse
import ast
import importlib
import re
import subprocess
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).parents[1]
SOURCE = PROJECT / "src" / "mlproject"

# What each floor may import of ours: what stands on the floors below it, or before it on its own.
FLOORS = (
    {"errors", "files", "onboard", "drawn_images", "golden", "learning", "mobilenet_v2"},
    {
        *(
            "java",
            "delta_jars",
            "session",
            "s3",
            "walking",
            "sources",
            "data_files",
            "lakes",
            "arrow_tables",
            "tables",
            "layout",
            "removal",
            "registry",
            "tracking",
            "version_files",
            "workers",
            "doorbell",
            "webhooks",
            "approvals",
        ),
        *("frameworks", "imagenet", "weights"),
    },
    {
        *(
            "image_files",
            "images",
            "labels",
            "refusals",
            "ingesting",
            "cleaning",
            "contents",
            "examples",
        ),
        *("keras_training", "torch_training", "training"),
        *("training_figures", "versions", "erasing"),
        *("prediction_rows", "guarded_model", "waves", "scoring", "scoring_runs"),
        *("ledger", "coverage", "planning", "following", "rollouts", "histories", "replaying"),
        *("reports", "report_queries", "thumbnails", "pages"),
        *("golden_answers", "comparing", "gates", "gate_tables", "gate_pages"),
    },
)


def ours(file: Path) -> set[str]:
    """Modules of mlproject that a file imports, as names below it ("" = the package itself)."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found |= {name for name in names if name != "mlproject"}
    parts = (name.split(".") for name in found if name.startswith("mlproject."))
    modules = {path.stem for path in SOURCE.iterdir()}
    return {part[1] for part in parts} & modules


def imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def floor(name: str) -> int:
    return next(number for number, names in enumerate(FLOORS) if name in names)


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("file", modules(), ids=lambda path: path.stem)
def test_imports_go_down_only(file):
    above = {name for name in ours(file) if floor(name) > floor(file.stem)}
    assert set() == above


def test_no_two_modules_import_each_other():
    graph = {path.stem: ours(path) for path in modules()}
    while graph:
        leaves = {name for name, needs in graph.items() if not needs & set(graph)}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: needs for name, needs in graph.items() if name not in leaves}


def test_the_ground_floor_needs_no_spark_and_no_mlflow():
    alone = (SOURCE / f"{name}.py" for name in FLOORS[0] - {"onboard"})
    files = [*SOURCE.glob("onboard/*.py"), *alone]
    for file in files:
        assert set() == imported(file) & {"pyspark", "mlflow", "delta", "pandas"}, file


def test_onboard_files_need_numpy_and_pillow_only():
    import sys

    for file in SOURCE.glob("onboard/*.py"):
        others = imported(file) - sys.stdlib_module_names
        # pyspark only when it is already there: inside a Spark worker.
        assert set() == others - {"numpy", "PIL", "pyspark"}, file


def test_models_import_nothing_of_ours():
    for file in (PROJECT / "models").glob("*.py"):
        assert "mlproject" not in imported(file), file


def test_only_verbs_make_sessions():
    for file in modules():
        if file.stem != "session":
            assert "getOrCreate" not in file.read_text(encoding="utf-8"), file


def entry_points() -> dict[str, dict]:
    text = (PROJECT / "MLproject").read_text(encoding="utf-8")
    return yaml.safe_load(text)["entry_points"]


def verbs() -> list[str]:
    return sorted(path.stem for path in (PROJECT / "pipelines").glob("[a-z]*.py"))


def test_entry_points_are_verbs():
    assert verbs() == sorted(entry_points())


@pytest.mark.parametrize("verb", verbs())
def test_parameters_are_the_parsers_options_with_the_same_defaults(verb):
    parser = importlib.import_module(f"pipelines.{verb}").parser()
    options = {
        action.option_strings[0].removeprefix("--"): None
        if action.required
        else str(action.default)
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction)
    }
    parameters = {
        name: None if "default" not in given else str(given["default"])
        for name, given in entry_points()[verb].get("parameters", {}).items()
    }
    assert options == parameters


@pytest.mark.parametrize("verb", verbs())
def test_a_command_passes_each_parameter_on(verb):
    entry = entry_points()[verb]
    assert entry["command"].startswith(f"PYTHONPATH=src python -m pipelines.{verb} ")
    for name in entry.get("parameters", {}):
        assert f"--{name} {{{name}}}" in entry["command"]


@pytest.mark.parametrize("verb", verbs())
def test_a_verbs_docstring_holds_a_command_to_paste(verb):
    doc = importlib.import_module(f"pipelines.{verb}").__doc__
    assert re.search(r"\n *mlflow run \. .*--env-manager local", doc)


def test_conda_yaml_and_requirements_pin_the_same():
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pins = {line for line in lines if line and not line.startswith("#")}
    conda = yaml.safe_load((PROJECT / "conda.yaml").read_text(encoding="utf-8"))
    assert pins == set(conda["dependencies"][-1]["pip"])
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", pin) for pin in pins)


def test_every_import_is_a_pinned_requirement_or_of_the_standard_library():
    import sys

    names = {"PIL": "pillow", "delta": "delta-spark", "mlproject": None, "pipelines": None}
    names["score"] = None  # benchmarks share it
    names["daft"] = None  # measured where it is there
    text = (PROJECT / "requirements.txt").read_text(encoding="utf-8")
    for folder in ("src", "pipelines", "models", "benchmarks"):
        for file in (PROJECT / folder).rglob("*.py"):
            for module in imported(file) - sys.stdlib_module_names:
                package = names.get(module, module)
                assert package is None or f"\n{package}==" in text, (file, module)


def test_nothing_in_the_root_but_mlproject_has_its_name():
    # MLflow looks the project file up without case and takes the first that matches.
    assert ["MLproject"] == [
        path.name for path in PROJECT.iterdir() if path.name.lower() == "mlproject"
    ]


def tracked() -> list[str]:
    said = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return said.stdout.splitlines()


def test_the_readmes_file_map_is_the_tree():
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## File map")[1].split("\n## ")[0]
    named = set(re.findall(r"^\| `([^`]+)`", section, re.MULTILINE))
    tree = {name if "/" not in name else name.split("/")[0] + "/" for name in tracked()}
    inner = ("src/mlproject/", "pipelines/", "models/", "benchmarks/")
    tree |= {name for name in tracked() if name.startswith(inner) and "/onboard/" not in name}
    tree |= {"src/mlproject/onboard/"}
    tree -= {"src/", "pipelines/", "models/", "benchmarks/", ".ci/", ".gitignore"}
    empty = {name for name in tree if name.endswith("__init__.py")}
    assert tree - empty == named - empty


def test_no_file_is_longer_than_the_house_keeps():
    for name in tracked():
        if name.endswith(".py"):
            lines = (PROJECT / name).read_text(encoding="utf-8").count("\n")
            assert lines <= 300, (name, lines)

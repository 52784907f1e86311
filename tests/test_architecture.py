"""The architecture, executed."""

import ast
import importlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

import mlproject
from mlproject import cli

PROJECT = Path(__file__).parents[1]
SOURCE = PROJECT / "src" / "mlproject"

# Top to bottom: a package imports the packages below it only. `errors` and `masking` lie under all.
LAYERS = (
    *("cli", "commands", "service", "replays", "gates", "reporting", "rollout", "scoring"),
    *("training", "quantization", "versions", "weights", "erasure", "ingestion", "images", "lake"),
    *("integrations", "storage", "inference", "worker_daemon", "errors", "masking"),
)
MODULES_OF_A_PACKAGE = 10  # what a newcomer can keep in mind; `commands` has one for each command


@dataclass(frozen=True)
class Import:
    """One import of ours: `from mlproject.PACKAGE import MODULE`, or of names of the module."""

    file: Path
    package: str
    module: str

    @property
    def importer(self) -> str:
        return self.file.relative_to(SOURCE).parts[0].removesuffix(".py")


def our_imports(file: Path) -> list[Import]:
    found = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            parts = node.module.split(".")
            if parts[0] != "mlproject":
                continue
            if len(parts) > 2 or (len(parts) == 2 and (SOURCE / f"{parts[1]}.py").is_file()):
                found.append(Import(file, parts[1], ".".join(parts[2:])))
            elif len(parts) == 2:
                found += [Import(file, parts[1], alias.name) for alias in node.names]
            else:
                found += [Import(file, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            assert not [name for name in names if name.startswith("mlproject.")], file
    return found


def imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def modules() -> list[Path]:
    return sorted(path for path in SOURCE.rglob("*.py") if path.stem != "__init__")


def packages() -> list[Path]:
    return sorted(path.parent for path in SOURCE.glob("*/__init__.py"))


def public(package: str) -> list[str]:
    return list(importlib.import_module(f"mlproject.{package}").__all__)


def test_every_package_has_a_layer():
    found = {path.name for path in packages()} | {path.stem for path in SOURCE.glob("[a-z]*.py")}
    assert set() == found - set(LAYERS)


@pytest.mark.parametrize("file", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down_the_layers_only(file):
    own = LAYERS.index(file.relative_to(SOURCE).parts[0].removesuffix(".py"))
    up = [one for one in our_imports(file) if LAYERS.index(one.package) < own]
    assert [] == up


@pytest.mark.parametrize("file", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_other_packages_are_used_through_what_they_export(file):
    for one in our_imports(file):
        if one.importer != one.package and one.package not in ("errors", "inference", "masking"):
            assert one.module.split(".")[0] in public(one.package), one


def test_no_two_modules_import_each_other():
    def name(path: Path) -> str:
        return ".".join(path.relative_to(SOURCE).with_suffix("").parts)

    graph = {
        name(path): {f"{one.package}.{one.module}".rstrip(".") for one in our_imports(path)}
        for path in modules()
    }
    while graph:
        leaves = {module for module, needs in graph.items() if not needs & set(graph)}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {module: needs for module, needs in graph.items() if module not in leaves}


@pytest.mark.parametrize("package", packages(), ids=lambda path: path.name)
def test_a_package_is_small_and_documented_and_exports_only_existing_modules(package):
    found = {path.stem for path in package.glob("[a-z]*.py")}
    if package.name != "commands":
        assert len(found) <= MODULES_OF_A_PACKAGE
    assert importlib.import_module(f"mlproject.{package.name}").__doc__
    if package.name != "inference":
        assert set() == set(public(package.name)) - found


def test_no_public_function_has_a_packages_name():
    assert set() == {path.name for path in packages()} & {
        node.name
        for path in modules()
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }


def test_inference_needs_numpy_pillow_and_one_runtime_only():
    for file in SOURCE.glob("inference/*.py"):
        others = imported(file) - sys.stdlib_module_names
        # pyspark only when it is already there, inside a Spark worker; ONNX Runtime with engine
        # onnxruntime.
        assert set() == others - {"numpy", "PIL", "pyspark", "onnxruntime"}, file


def test_models_import_nothing_of_ours():
    for file in (PROJECT / "models").glob("*.py"):
        assert "mlproject" not in imported(file), file


def test_one_module_makes_sessions():
    for file in modules():
        if file.stem != "spark_start":
            assert "getOrCreate" not in file.read_text(encoding="utf-8"), file


def entry_points() -> dict[str, dict]:
    text = (PROJECT / "MLproject").read_text(encoding="utf-8")
    return yaml.safe_load(text)["entry_points"]


def command_of(entry_point: str) -> str:
    return "demo" if entry_point == "main" else entry_point  # MLflow's name for its default


def launchers() -> list[str]:
    return sorted(path.stem for path in (PROJECT / "pipelines").glob("[a-z]*.py"))


def test_entry_points_are_the_commands_and_each_has_a_launcher():
    assert launchers() == sorted(entry_points())
    assert sorted(map(command_of, entry_points())) == sorted(cli.COMMANDS)


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_parameters_are_the_commands_options_with_the_same_defaults(name):
    context = click.Context(cli.main)
    options = {
        option.name: None if option.required else comparable(option.default)
        for option in cli.main.get_command(context, name).get_params(context)
        if "--help" not in option.opts
    }
    given = entry_points()["main" if name == "demo" else name].get("parameters", {})
    expected = {
        parameter: None if "default" not in settings else comparable(settings["default"])
        for parameter, settings in given.items()
    }
    assert expected == {**options, "working_directory": "."}  # which the launcher reads


def comparable(default: object) -> object:
    try:
        return float(str(default))  # 0.00001 is 1e-05
    except ValueError:
        return str(default)


@pytest.mark.parametrize("name", launchers())
def test_an_entry_point_runs_its_launcher_and_passes_each_parameter_on(name):
    entry = entry_points()[name]
    environment = "MLPROJECT_WORKING_DIRECTORY={working_directory} PYTHONPATH=src"
    assert entry["command"].startswith(f"{environment} python -m pipelines.{name} ")
    for parameter in entry["parameters"].keys() - {"working_directory"}:
        assert f"--{parameter} {{{parameter}}}" in entry["command"]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_help_of_a_command_is_one_line_and_an_example_to_paste(name):
    doc = importlib.import_module(f"mlproject.commands.{name}").__doc__
    assert "" == doc.splitlines()[1]
    assert re.search(r"\nmlflow run \. .*--env-manager local", doc)


def test_every_command_but_the_demo_is_a_public_function():
    assert set() == {*cli.COMMANDS} - {"demo"} - {*mlproject.__all__}


def pins_of(file: str) -> set[str]:
    lines = (PROJECT / file).read_text(encoding="utf-8").splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def test_conda_yaml_and_requirements_pin_the_same():
    pins = pins_of("requirements.txt")
    assert pins_of("requirements-scoring.txt") < pins
    conda = yaml.safe_load((PROJECT / "conda.yaml").read_text(encoding="utf-8"))
    assert pins == set(conda["dependencies"][-1]["pip"])
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", pin) for pin in pins)


def test_every_import_is_a_pinned_requirement_or_of_the_standard_library():
    names = {"PIL": "pillow", "delta": "delta-spark", "mlproject": None, "pipelines": None}
    names["prometheus_client"] = "prometheus-client"
    # What benchmarks import of their own, of a downloaded version, and of the tests' servers.
    own = {path.stem for path in (PROJECT / "benchmarks").iterdir()} | {"inference", "tests"}
    for folder in ("src", "pipelines", "models", "benchmarks"):
        pins = {pin.split("==")[0] for pin in pins_of("requirements.txt")}
        if folder == "benchmarks":
            pins |= {re.split(r"\[|==", pin)[0] for pin in pins_of("benchmarks/requirements.txt")}
        others = own if folder == "benchmarks" else set()
        for file in (PROJECT / folder).rglob("*.py"):
            for module in imported(file) - sys.stdlib_module_names - others:
                package = names.get(module, module)
                assert package is None or package in pins, (file, module)


def test_the_peers_of_the_benchmark_are_pinned():
    pins = pins_of("benchmarks/requirements.txt")
    assert all(re.fullmatch(r"[\w-]+(\[\w+\])?==[\w.]+", pin) for pin in pins)


def test_nothing_in_the_root_but_mlproject_has_its_name():
    # MLflow looks the project file up without case and takes the first that matches.
    assert ["MLproject"] == [
        path.name for path in PROJECT.iterdir() if path.name.lower() == "mlproject"
    ]


def tracked() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_no_file_is_longer_than_300_lines():
    for name in tracked():
        if name.endswith(".py"):
            lines = (PROJECT / name).read_text(encoding="utf-8").count("\n")
            assert lines <= 300, (name, lines)

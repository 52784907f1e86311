"""Versions as the oldest releases registered them, before networks in ONNX (decision 17)."""

from pathlib import Path

import mlflow
from mlflow.models import Model

from mlproject.versions import version_files
from mlproject.versions.registration import signature
from mlproject.versions.registry import Version

CHOICE = 'self.config["engine"] == "onnxruntime"'  # what the model file of that time lacks
LACKING = ("engine", "device_batch_size")  # in the model config


def register_oldest(version: Version, folder: Path) -> Version:
    """A version of the oldest layout, with the weights of a native version.

    Its model config has no engine and its model file asks for none, it has no network in ONNX, and
    its tags name only the framework. `folder` is new.
    """
    folder.mkdir()
    version_files.download(version, folder)
    flavor = Model.load(str(folder / "MLmodel")).flavors["python_function"]
    code = folder / Path(flavor["model_code_path"]).name
    text = code.read_text(encoding="utf-8")
    assert 1 == text.count(CHOICE)
    code.write_text(text.replace(CHOICE, "False"), encoding="utf-8")
    config = {key: value for key, value in flavor["config"].items() if key not in LACKING}
    artifacts = {name: folder / one["path"] for name, one in flavor["artifacts"].items()}
    assert {"weights", "labels", "inference"} == set(artifacts)
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name=f"{config['framework']}_mobilenet_v2",
            python_model=str(code),
            artifacts={name: str(path) for name, path in artifacts.items()},
            model_config=config,
            signature=signature(),
            pip_requirements=str(folder / "requirements.txt"),
        )
    tags = {"framework": config["framework"]}
    made = mlflow.register_model(f"models:/{logged.model_id}", version.name, tags=tags)
    return Version(version.name, int(made.version), logged.model_id, pointer=None)

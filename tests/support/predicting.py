"""Images for the tests of versions, the ways to get predictions, and their differences."""

import base64
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import pandas as pd

from mlproject.versions import reference_images
from tests.conftest import SHARED

# Seconds. A version predicts in seconds; importing its framework on a busy machine takes a minute.
START_S = 240

# Gets the predictions of a version in a process that cannot import mlproject.
ISOLATED = """
import importlib.abc, json, os, sys
class NoMlproject(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mlproject":
            raise ImportError("mlproject cannot be imported here")
sys.meta_path.insert(0, NoMlproject())
import base64, mlflow, pandas as pd
contents = [base64.b64decode(text) for text in json.load(open(sys.argv[2]))]
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = model.predict(pd.DataFrame({"content": contents})).to_dict("records")
assert not any(name.split(".")[0] == "mlproject" for name in sys.modules)
json.dump(rows, open(sys.argv[3], "w"))
"""


def images():
    """The reference images, and photos and hostile files where they exist: a list of bytes."""
    contents = [image.content for image in reference_images.reference_images()]
    if SHARED.is_dir():
        contents += [path.read_bytes() for path in photos()[:10]]
        with (SHARED / "hostile" / "MANIFEST.csv").open(encoding="utf-8") as manifest:
            contents += [
                (SHARED / "hostile" / row["file"]).read_bytes() for row in csv.DictReader(manifest)
            ]
    return contents


def photos():
    return sorted((SHARED / "imagenet-sample" / "images").iterdir())


def frame(contents):
    return pd.DataFrame({"content": contents})


def unlike(predictions, expected):
    """The rows of two frames of predictions that differ in label, error, or by 1e-5 in score."""
    predictions, expected = predictions.reset_index(drop=True), expected.reset_index(drop=True)
    assert len(predictions) == len(expected)
    scores = predictions["score"].astype("float64")
    near = (scores - expected["score"]).abs() <= 1e-5
    same = near | (scores.isna() & expected["score"].isna())
    for column in ("label", "error"):
        same &= predictions[column] == expected[column]
    for column in ("top_labels", "top_scores"):
        same &= predictions[column].map(len) == expected[column].map(len)
    return predictions.join(expected, rsuffix="_expected")[~same].to_dict("records")


def through_isolated_process(uri, contents, folder):
    """The predictions of a version in a process of its own, without our package."""
    contents_file, rows_file = folder / "contents.json", folder / "rows.json"
    contents_file.write_text(
        json.dumps([base64.b64encode(content).decode() for content in contents])
    )
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-I", "-c", ISOLATED, uri, str(contents_file), str(rows_file)],
        cwd=folder,
        env={**clean, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        check=True,
        timeout=START_S,
    )
    return pd.DataFrame(json.loads(rows_file.read_text()))


def through_rest(uri, contents, folder):
    """The predictions of `mlflow models serve` over REST, with the contents in base64."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bin_folder = Path(sys.executable).parent
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(bin_folder / "mlflow"), "models", "serve", "-m", uri, "-p", str(port)]
    with (folder / "serve.log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--env-manager", "local", "--workers", "1"],
            cwd=folder,
            env={**clean, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_for_ping(server, port, folder / "serve.log")
            records = [{"content": base64.b64encode(content).decode()} for content in contents]
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations",
                data=json.dumps({"dataframe_records": records}).encode(),
                headers={"Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=START_S) as response:  # noqa: S310 - our own http URL
                return pd.DataFrame(json.load(response)["predictions"])
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def _wait_for_ping(server, port, log):
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise TimeoutError(log.read_text())


def through_spark(spark, uri, contents, tasks=6):
    """The predictions of `spark_udf` in several tasks, and the loads of networks by worker process.

    Spark pools workers by environment: the workers of these tasks are new.
    """

    def loads_of(batches):
        for _ in batches:
            time.sleep(0.5)
        packages = [
            package
            for name, package in sys.modules.items()
            if name.startswith("mlproject_inference_") and "." not in name
        ]
        keys = [key for package in packages for key in package.loads()]
        yield pd.DataFrame({"process": [os.getpid()], "loads": [len(keys)]})

    environment = spark.sparkContext.environment
    before = dict(environment)
    environment["MLPROJECT_TEST"] = uri
    try:
        udf = mlflow.pyfunc.spark_udf(spark, uri, env_manager="local")
        table = spark.createDataFrame(frame(contents).reset_index()).repartition(tasks)
        returned = table.select("index", udf("content").alias("row"))
        predictions = returned.select("index", "row.*").toPandas().sort_values("index")
        # Each task takes so long that every worker gets one.
        counted = spark.range(0, tasks, 1, tasks).mapInPandas(loads_of, "process long, loads long")
        loads = {row["process"]: row["loads"] for row in counted.collect()}
    finally:
        environment.clear()
        environment.update(before)
    return predictions, loads

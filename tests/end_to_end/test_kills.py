"""The proof: rescore killed again and again, while pointers move, images come and readers read."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time

import mlflow
import pytest

from mlproject.ingestion import new_images, source_listing
from mlproject.rollout import ledger
from mlproject.versions import registry
from tests.conftest import THOROUGH, photos
from tests.support import forks
from tests.support.lakes import frame
from tests.support.rollouts import require_sound, serving
from tests.support.versions import register_colours

pytestmark = [pytest.mark.spark, pytest.mark.slow]

KILLS = 25 if THOROUGH else 6
POINTER = "models:/photos@champion"
RESCORE = """
import sys
from mlproject import cli
cli.main(["rescore", "--pointers", sys.argv[1], "--lake", sys.argv[2]], prog_name="mlproject")
"""

# What a reader does who has nothing but `deltalake`, again and again, in a process of its own. It
# reports how often it read, and of every time when it saw other than one whole version.
READER = """
import json, sys
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

def frame(table, sql, version=None):
    found = DeltaTable(f"{lake}/{table}", version=version)
    return pa.table(QueryBuilder().register("t", found).execute(sql).read_all()).to_pandas()

lake, pointer = sys.argv[1:]
reads, wrong = 0, []
while not sys.stdin.closed and not __import__("select").select([sys.stdin], [], [], 0.5)[0]:
    ledger = frame("rollouts", "SELECT * FROM t").sort_values("at")
    ledger = ledger[(ledger.pointer == pointer) & (ledger.state == "serving")]
    now = ledger.iloc[-1]
    name = now.model_name
    where = f"model_name = '{name}' AND model_version = {now.model_version}"
    predicted = frame("predictions", f"SELECT image_id, model_id FROM t WHERE {where}")
    predicted = predicted[predicted.model_id == now.model_id].image_id
    images = set(frame("images", "SELECT image_id FROM t", int(now.images_version)).image_id)
    reads += 1
    if not predicted.is_unique or images - set(predicted):
        distinct = int(predicted.nunique())
        wrong.append([int(now.model_version), len(images), len(predicted), distinct])
print(json.dumps([reads, wrong]))
"""


def test_rescore_killed_at_many_moments_leaves_what_an_undisturbed_one_leaves(
    spark, lake, store, tmp_path
):
    client, dice = mlflow.MlflowClient(), random.Random(25)
    versions = [register_colours("photos", reverse=bool(number % 2)) for number in range(3)]
    source, count = tmp_path / "source", 0

    def images_come(more):
        nonlocal count
        photos(source, more, "red", seed=count)  # other bytes under the same names: all are kept
        count += more
        new_images.ingest_pending(spark, lake, source_listing.listing(str(source)))

    output = tmp_path / "output.txt"

    def rescore():
        return forks.start(RESCORE, POINTER, lake, cwd=tmp_path, output=output)

    images_come(8)
    for version in versions[:2]:  # the second one's life has all steps
        registry.move(client, version, alias="champion")
        images_come(2)
        began, process = time.monotonic(), rescore()
        process.join(300)
        life = time.monotonic() - began
        assert version.version == serving(lake), output.read_text()
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, lake, POINTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    killed = lives = 0
    while killed < KILLS:
        assert lives < 2 * KILLS
        began, process, lives = time.monotonic(), rescore(), lives + 1
        if lives % 2:
            registry.move(client, dice.choice(versions), alias="champion")
        images_come(1)  # so that there is always something to do
        # Nothing is written in the first third: Spark starts.
        process.join(max(0, began + life * dice.uniform(0.3, 1) - time.monotonic()))
        if process.exitcode is not None:  # the machine has less to do, or this life had
            life = max(0.8 * life, time.monotonic() - began)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        require_sound(lake)
    registry.move(client, versions[2], alias="champion")
    process = rescore()
    process.join(300)
    assert 0 == process.exitcode, output.read_text()
    report, _ = reader.communicate("end", timeout=60)
    reads, wrong = json.loads(report)
    assert [] == wrong
    assert reads > KILLS
    require_sound(lake)
    now = ledger.read(lake).serving(POINTER)
    assert (versions[2].version, count, count) == (
        now.version.version,
        now.covered.images,
        now.covered.predicted,
    )
    answers = frame(lake, "predictions")
    assert not answers.duplicated(["image_id", "model_name", "model_version", "model_id"]).any()
    assert {entry.state for entry in ledger.read(lake).entries} >= {"scoring", "serving"}

"""Checks that a lake and an MLflow store of an older release work with this one.

    python benchmarks/upgrade.py --commit 6eb5f63

It checks the older commit out, makes a lake and a store with it, and runs the commands of
this checkout on them: ingest, score, roll out, roll back, erase, maintain. It prints their output,
and ends with exit code 1 if a check fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).parents[1]
NAMES = ("photos", "a b", "a%b", "phö tos", "模型")  # Spark logs their folders in different ways

OLD = """
import sys
from pathlib import Path
import mlflow
from mlproject import erasing, ingesting, lakes, sources, tables, tracking
from mlproject.session import session
from tests.conftest import photos
from tests.versions_for_tests import register_colours

names, client = sys.argv[1:], tracking.connect()
lake = lakes.locate_to_write("lake")
photos(Path("photos"), 6, "red")
photos(Path("photos"), 4, "green", seed=1)
mlflow.set_experiment("upgrade")
class Stopped(Exception):
    pass
def stop(done, total):
    if done == 4:  # all rows are deleted, and no file yet
        raise Stopped
with session() as spark:
    ingesting.ingest(spark, lake, sources.listing("photos"))
    chosen = erasing.selection(path=str(Path("photos/red/005.jpg").resolve()))
    try:
        erasing.erase(spark, lake, chosen, on_step=stop)
    except Stopped:
        pass
for name in names:
    for reverse in (False, True):
        register_colours(name, reverse=reverse)
    client.set_registered_model_alias(name, "champion", "1")
"""

CHECK = """
import json, sys
from pathlib import Path
from mlproject.lake.queries import query
lake, secret = sys.argv[1], bytes.fromhex(sys.argv[2])
sql = '''SELECT model_name, model_version, count(*) AS rows, count(DISTINCT image_id) AS images
    FROM predictions GROUP BY model_name, model_version ORDER BY model_name, model_version'''
files = [str(file) for file in Path(lake).rglob("*") if file.is_file()]
print(json.dumps({
    "images": query(lake, "SELECT DISTINCT image_id FROM images", ["images"]).num_rows,
    "predictions": query(lake, sql, ["predictions"]).to_pylist(),
    "files_with_the_erased_bytes": [file for file in files if secret in Path(file).read_bytes()],
}))
"""


def main() -> int:
    """Makes the lake and runs the commands on it; 1 where a check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commit", default="6eb5f63", help="the older release")
    commit = parser.parse_args().commit
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        old = folder / "old"
        git = ["git", "-C", str(PROJECT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(old), commit], check=True)
        try:
            _make(old, folder)
            return _run_commands(folder)
        finally:
            subprocess.run([*git, "remove", "--force", str(old)], check=True)


def _make(old: Path, folder: Path) -> None:
    """A lake with five models of one version each that serves, and an unfinished erasure."""
    print("== made by the older release")
    _python(old, folder, "-c", OLD, *NAMES)
    pointers = ",".join(f"models:/{name}@champion" for name in NAMES)
    _python(old, folder, "-m", "pipelines.rescore", "--pointers", pointers)


def _run_commands(folder: Path) -> int:
    secret = (folder / "photos/red/004.jpg").read_bytes()
    middle = secret[len(secret) // 2 :][:64].hex()
    pointers = [f"models:/{name}@champion" for name in NAMES]
    faults = []

    def expect(what: str, expected: object, found: object) -> None:
        print(f"   {what}: {found} {'as expected' if expected == found else f'NOT {expected}'}")
        if expected != found:
            faults.append(what)

    def command(name: str, *arguments: str) -> str:
        print(f"\n== {' '.join((name, *arguments))}")
        return _python(PROJECT, folder, "-m", f"pipelines.{name}", *arguments)

    def state() -> dict[str, object]:
        line = _python(PROJECT, folder, "-c", CHECK, str(folder / "lake"), middle, quiet=True)
        return dict(json.loads(line))

    def rows(images: int, versions: int) -> list[dict[str, object]]:
        return [
            {"model_name": name, "model_version": number, "rows": images, "images": images}
            for name in sorted(NAMES)
            for number in range(1, versions + 1)
        ]

    command("history")
    expect("images and predictions", (9, rows(9, 1)), (state()["images"], state()["predictions"]))
    command("erase", "--path", str((folder / "photos/red/005.jpg").resolve()))
    (folder / "photos/blue").mkdir()
    (folder / "photos/blue/new.jpg").write_bytes(
        (folder / "photos/red/000.jpg").read_bytes() + b"\0"
    )
    os.utime(folder / "photos/blue/new.jpg", (1e9, 1e9))
    command("ingest", "--source", "photos")
    command("rescore")
    expect("a new image is scored by each", rows(10, 1), state()["predictions"])
    for name in NAMES:
        command("promote", "--model", f"models:/{name}/2", "--gate", "off")
    command("plan")
    command("rescore", "--pointers", ",".join(pointers))
    expect("rolled out", rows(10, 2), state()["predictions"])
    command("promote", "--model", "models:/模型/1", "--gate", "off")
    output = command("rescore", "--pointers", "models:/模型@champion")
    expect("rolled back at once", True, "nothing to score" in output)
    command("erase", "--path", str((folder / "photos/red/004.jpg").resolve()))
    expect("erased from all", (rows(9, 2), []), _pair(state()))
    command("maintain")
    expect("after maintenance", (rows(9, 2), []), _pair(state()))
    command("history")
    command("report")
    print(f"\n{len(faults)} checks failed{': ' if faults else ''}{', '.join(faults)}")
    return 1 if faults else 0


def _pair(state: dict[str, object]) -> tuple[object, object]:
    return state["predictions"], state["files_with_the_erased_bytes"]


def _python(project: Path, folder: Path, *arguments: str, quiet: bool = False) -> str:
    """The output of Python with the code of a checkout; its last line with `quiet`."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{project / 'src'}{os.pathsep}{project}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if not quiet or done.returncode:
        print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SystemExit(f"{arguments[:3]} ended with exit code {done.returncode}")
    return done.stdout.splitlines()[-1] if quiet else done.stdout


if __name__ == "__main__":
    sys.exit(main())

"""Seconds of `score` against bare loops and against other ways to score the same photos.

    pip install -r benchmarks/requirements.txt
    python benchmarks/score.py --photos FOLDER --framework torch --weights FILE --labels FILE

Everything is measured in one run on one machine, in turn, several times: ratios count. The photos
are repeated until there are enough, each copy different by appended bytes.

- limit: a process a core; each reads its files, decodes them and runs the network in ONNX Runtime,
  8 images at a time, without MLflow, pandas and Spark. int8_limit: the same, with the int8 network.
- framework: a process a core; each loads a version with `engine=native` and lets it predict 32
  images at a time.
- cold: the whole command `score`. Warm: `score` of a second version in a session that has scored
  one. int8, float16: the same, of a version in this precision (float16 only where it is named).
- peers: see the modules in `benchmarks/peers`. Each runs with the ONNX network that `score` runs,
  and with the framework; twice in one process, so that the second run is warm too.
"""

import argparse
import shlex
import sys
import tempfile
from pathlib import Path

import chart
import results as records
from measurements import MEASURES, measure
from results import PEERS, Results


def main() -> None:
    """Measures, or reads results, and prints and writes their tables and chart."""
    given = _arguments()
    if given.render:
        results = records.read(given.render)
        _write(results, given.render.parent)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            results = measure(given, Path(temporary), _command())
        if given.out:
            given.out.mkdir(parents=True, exist_ok=True)
            _write(results, given.out)
    print(records.markdown(results))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="folder of photos")
    parser.add_argument("--images", type=int, default=2000, help="at least so many")
    parser.add_argument("--repetitions", type=int, default=3, help="of each measurement")
    parser.add_argument("--framework", choices=("keras", "torch"))
    parser.add_argument("--weights", default="imagenet", help="imagenet, or a weights file")
    parser.add_argument("--labels", default="", help="as in register")
    parser.add_argument(
        "--measures",
        nargs="*",
        choices=MEASURES,
        default=list(MEASURES[:-1]),
        help="loops and score",
    )
    parser.add_argument(
        "--peers", nargs="*", choices=PEERS, default=list(PEERS), help="none where none is named"
    )
    parser.add_argument("--out", type=Path, help="folder for JSON, Markdown and SVG")
    parser.add_argument(
        "--render", type=Path, metavar="JSON", help="write tables and chart of earlier results"
    )
    given = parser.parse_args()
    if not given.render and not (given.photos and given.framework):
        parser.error("--photos and --framework are required")
    return given


def _command() -> str:
    """The command line, with the names alone of folders and files outside the project."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", "benchmarks/score.py", *words])


def _write(results: Results, folder: Path) -> None:
    """Writes score-FRAMEWORK-PHOTOS.json, .md and .svg."""
    name = f"score-{results.framework}-{results.photos}"
    records.write(results, folder / f"{name}.json")
    (folder / f"{name}.md").write_text(records.markdown(results), encoding="utf-8")
    (folder / f"{name}.svg").write_text(chart.svg(results), encoding="utf-8")


if __name__ == "__main__":
    main()

"""What `score` has measured: the record, its file, and its tables in Markdown."""

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

LARGE = 20_000  # photos from which a cold run must come closer to the limit
REQUIRED = 2000  # photos from which ratios are required; with fewer, what does not grow counts more
PEERS = {
    "pandas_udf": "pandas UDF",
    "spark_udf": "mlflow.pyfunc.spark_udf",
    "predict_batch_udf": "predict_batch_udf",
    "ray": "Ray Data",
    "daft": "Daft",
}
ENGINES = ("onnxruntime", "native")
# Rows: title, kind, the seconds of whole processes, and those of a second run in them.
OURS = (
    ("bare loop of ONNX Runtime (the limit)", "loop", "limit", "limit_again"),
    ("bare loop of ONNX Runtime, int8", "loop", "int8_limit", "int8_limit_again"),
    ("bare loop of {framework}", "loop", "framework", "framework_again"),
    ("score", "ours", "cold", "warm"),
    ("score, int8", "ours", "", "int8"),
    ("score, float16", "ours", "", "float16"),
)


@dataclass(frozen=True, slots=True)
class Results:
    """What one run of the benchmark has measured."""

    framework: str
    """keras or torch."""
    photos: int
    """How many photos were predicted in each measurement."""
    photo_bytes: float
    """Their mean size."""
    repetitions: int
    """How often each measurement was made, in turn with the others."""
    command: str
    """The command that was run."""
    facts: str
    """The machine and its packages."""
    seconds: dict[str, list[float]]
    """Measurement -> seconds of each repetition. A loop has `LOOP` and `LOOP_again`, a peer
    `PEER/ENGINE/first` and `/second`."""
    agreement: dict[str, float]
    """`PEER/ENGINE` -> share of the photos with the label that `score` predicts, 0..1."""
    missing: dict[str, str]
    """`PEER/ENGINE` -> why it was not measured."""


@dataclass(frozen=True, slots=True)
class Row:
    """A way to predict the photos."""

    title: str
    """Its name in the table."""
    kind: str
    """`loop`, `ours`, or the engine of a peer."""
    whole: tuple[float, ...]
    """Seconds of whole processes; empty = not measured."""
    second: tuple[float, ...]
    """Seconds of a second run in these processes; empty = not measured."""
    key: str
    """Its key in `agreement` and `missing`."""

    @property
    def warm(self) -> tuple[float, ...]:
        """Seconds that are compared: of second runs, or of whole processes where there is none."""
        return self.second or self.whole


@dataclass(frozen=True, slots=True)
class Bar:
    """A ratio that must be reached."""

    title: str
    """Both sides of the ratio."""
    ratio: float
    """What was measured, by medians."""
    least: float | None
    """What is required; None = nothing."""


def read(file: Path) -> Results:
    """Results that `write` has written."""
    return Results(**json.loads(file.read_text(encoding="utf-8")))


def write(results: Results, file: Path) -> None:
    """Writes results as JSON."""
    file.write_text(json.dumps(asdict(results), indent=1) + "\n", encoding="utf-8")


def rows(results: Results) -> list[Row]:
    """Every way that was asked for, in the order of the table."""
    seconds = {name: tuple(values) for name, values in results.seconds.items()}
    found = []
    for title, kind, whole, second in OURS:
        values = seconds.get(whole, ()), seconds.get(second, ())
        if any(values):
            found.append(Row(title.format(framework=results.framework), kind, *values, whole))
    for peer, name in PEERS.items():
        for engine in ENGINES:
            key = f"{peer}/{engine}"
            first, second_run = seconds.get(f"{key}/first", ()), seconds.get(f"{key}/second", ())
            if first or key in results.missing:
                network = "ONNX" if engine == "onnxruntime" else results.framework
                found.append(Row(f"{name}, {network}", engine, first, second_run, key))
    return found


def bars(results: Results) -> list[Bar]:
    """The ratios that were measured."""
    middle = {name: statistics.median(found) for name, found in results.seconds.items() if found}
    cold = 0.8 if results.photos >= LARGE else 0.5
    is_required = results.photos >= REQUIRED
    pairs: list[tuple[str, str, str, float | None]] = [
        ("bare loop of ONNX Runtime / score, warm", "limit", "warm", 0.9),
        ("bare loop of ONNX Runtime in int8 / score in int8, warm", "int8_limit", "int8", 0.8),
        ("bare loop of ONNX Runtime / score, cold", "limit", "cold", cold),
        ("score, warm / score in int8, warm", "warm", "int8", 1.6),
        ("second bare loop of ONNX Runtime / score, warm", "limit_again", "warm", None),
        ("second bare loop in int8 / score in int8, warm", "int8_limit_again", "int8", None),
    ]
    found = [
        Bar(title, middle[numerator] / middle[denominator], least if is_required else None)
        for title, numerator, denominator, least in pairs
        if numerator in middle and denominator in middle
    ]
    peers = [row for row in rows(results) if row.kind == "onnxruntime" and row.second]
    if peers and "warm" in middle:
        best = min(peers, key=lambda row: statistics.median(row.second))
        title = f"fastest peer with the same ONNX network ({best.title}) / score, warm"
        ratio = statistics.median(best.second) / middle["warm"]
        found.append(Bar(title, ratio, 1.0 if is_required else None))
    return found


def markdown(results: Results) -> str:
    """The tables, with the machine's facts and the command."""
    loops = results.seconds.get("limit", [])
    spread = (
        f" Slowest and fastest limit: {max(loops) / min(loops):.2f} times apart." if loops else ""
    )
    lines = [
        f"## {results.framework}, {results.photos:,} photos of {results.photo_bytes / 1000:.0f} kB",
        "",
        f"{results.facts}{spread} Seconds are medians (repetitions: {results.repetitions}), "
        "with the least and the most.",
        "",
        "```",
        results.command,
        "```",
        "",
        "| | whole process, s | second run, s | images/s | of the limit | same label |",
        "|---|---|---|---|---|---|",
        *(_line(row, results) for row in rows(results)),
        "",
        "Images a second and the share of the limit are of second runs, where there are any.",
        "",
        "| ratio of seconds | measured | required |",
        "|---|---|---|",
        *(f"| {bar.title} | {bar.ratio:.2f} | {_required(bar)} |" for bar in bars(results)),
        "",
    ]
    return "\n".join(lines)


def _required(bar: Bar) -> str:
    return "" if bar.least is None else f"{bar.least:.2f}"


def _line(row: Row, results: Results) -> str:
    if not row.warm:
        return f"| {row.title} | {results.missing[row.key]} | | | | |"
    middle = statistics.median(row.warm)
    # A second run is compared with the second loop: neither starts a process.
    limit = results.seconds.get("limit_again" if row.second else "limit")
    of_limit = f"{statistics.median(limit) / middle:.2f}" if limit else ""
    agreement = results.agreement.get(row.key)
    same = "" if agreement is None else f"{agreement:.1%}"
    seconds = f"{_spread(row.whole)} | {_spread(row.second)}"
    return f"| {row.title} | {seconds} | {results.photos / middle:.1f} | {of_limit} | {same} |"


def _spread(seconds: tuple[float, ...]) -> str:
    if not seconds:
        return ""
    return f"{statistics.median(seconds):.1f} ({min(seconds):.1f} to {max(seconds):.1f})"

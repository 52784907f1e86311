"""Rows of real Delta tables as commands write them, at any time, without Spark; bare versions."""

import hashlib
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import deltalake
import pandas as pd
import pyarrow as pa
from mlflow import MlflowClient
from pyspark.sql import DataFrame

from mlproject.lake import commits, data_files, queries, schemas, snapshots
from mlproject.scoring.scorer import ScoringResult
from mlproject.versions.registry import Version, resolve

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    """A time in January 2026: 1 is the beginning of the first day, 1.5 is its noon."""
    return BEGIN + timedelta(days=number - 1)


def version(number: int, model_id: str = "", name: str = "photos") -> Version:
    """A version that no registry knows."""
    return Version(name, number, model_id or f"m-{number:032}", None)


def register(client: MlflowClient, name: str) -> Version:
    """A registered version without files."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    source = f"/nowhere/{time.time_ns()}"
    number = client.create_model_version(name, source).version
    return resolve(client, f"models:/{name}/{number}")


def image_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def add(lake: str, table: str, *rows: dict[str, object]) -> None:
    """Rows of any table, in one commit; without rows the table alone."""
    snapshots.create(f"{lake}/{table}", table)
    if rows:
        data = pa.Table.from_pylist(list(rows), schema=schemas.SCHEMAS[table])
        deltalake.write_deltalake(f"{lake}/{table}", data, mode="append")


def add_frame(lake: str, table: str, frame: DataFrame) -> None:
    """Rows of a DataFrame, in one commit."""
    add(lake, table, *frame.toArrow().to_pylist())


def frame(lake: str, table: str) -> pd.DataFrame:
    """All rows of a table; deltalake's own `to_pandas` may abort the process at its exit."""
    return queries.query(lake, f"SELECT * FROM {table}", [table]).to_pandas()


def add_images(lake: str, numbers: Iterable[int], **facts: object) -> list[str]:
    """Images without content, all with the same facts, such as `label`; gives back their ids."""
    now = datetime.now(UTC)
    same = {"size_bytes": 1000, "modified_at": now, "ingested_at": now}
    rows = [
        {"path": f"/photos/{number:03}.jpg", "image_id": image_id(number), **same, **facts}
        for number in numbers
    ]
    add(lake, "images", *rows)
    return [row["image_id"] for row in rows]


def add_image(
    lake: str,
    path: str,
    content: bytes,
    at: datetime,
    *,
    inline: bool = True,
    label: str | None = None,
) -> str:
    """Ingests an image; gives back its image_id."""
    facts = {"size_bytes": len(content), "modified_at": at, "ingested_at": at}
    key, held = hashlib.sha256(content).hexdigest(), content if inline else None
    add(lake, "images", {"path": path, "image_id": key, "content": held, "label": label, **facts})
    return key


def add_predictions(
    lake: str, who: Version, ids: Iterable[str], at: datetime | None = None, **answer: object
) -> None:
    """The same answer to each image: `label` and `score`, or `error`; now unless given."""
    facts = {"images_version": 9, "run_id": "", "scored_at": at or datetime.now(UTC)}
    if "error" not in answer:
        label, score = answer.get("label", "daisy"), answer.get("score", 0.9)
        facts |= {"label": label, "score": score, "top_labels": [label], "top_scores": [score]}
    rows = ({"image_id": one, **facts, **answer, **_key(who)} for one in ids)
    add(lake, "predictions", *rows)


def commit_predictions(
    lake: str, who: Version, ids: Iterable[str], error: str | None = None
) -> None:
    """Rows without labels, with the log entry that `score` makes."""
    since = snapshots.to_append(lake, "predictions", f"score:{who.model_id}")
    facts = {"model_id": who.model_id, "images_version": 0, "scored_at": datetime.now(UTC)}
    rows = [{"image_id": one, "error": error, **facts} for one in ids]
    columns = schemas.SCHEMAS["predictions"]
    file = data_files.write(
        [pa.Table.from_pylist(rows, schema=columns)],
        columns,
        since.path,
        since.version,
        partition_values={"model_name": who.name, "model_version": str(who.version)},
    )
    assert commits.append_files([file] if file else [], since)


def add_rollout(
    lake: str,
    pointer: str,
    who: Version,
    state: str,
    at: datetime | None = None,
    reason: str = "",
    **row: object,
) -> None:
    """A row of the ledger; 5 images of version 3 of `images` are answered unless given."""
    counts = {"images": 5, "answered": 5, "errors": 1, "images_version": 3, "run_id": "run", **row}
    coverage = counts["answered"] / counts["images"]
    facts = {"pointer": pointer, "state": state, "coverage": coverage, "reason": reason}
    add(lake, "rollouts", {**facts, "at": at or datetime.now(UTC), **counts, **_key(who)})


def predicted_by(lake: str, who: Version) -> set[str]:
    """The image_ids that a version has answered."""
    sql = f"SELECT image_id FROM predictions WHERE model_id = '{who.model_id}'"
    return set(queries.query(lake, sql, ["predictions"])["image_id"].to_pylist())


def pending(lake: str, who: Version) -> list[str]:
    """The image_ids that a version has not answered, in their order."""
    every = queries.query(lake, "SELECT image_id FROM images", ["images"])
    return sorted(set(every["image_id"].to_pylist()) - predicted_by(lake, who))


def scored(lake: str, images: int) -> ScoringResult:
    newest = snapshots.newest(lake, "images").version
    return ScoringResult(images, 0, images * 1000, 0, 0, 1.0, newest, 0)


def _key(who: Version) -> dict[str, object]:
    return {"model_name": who.name, "model_version": who.version, "model_id": who.model_id}

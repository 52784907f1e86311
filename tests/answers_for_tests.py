"""Lakes written without Spark: images, answers and rows of the ledger."""

import hashlib
from datetime import UTC, datetime

import deltalake
import pyarrow as pa

from mlproject import lakes


def image_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def write(lake: str, table: str, rows: list[dict]) -> None:
    lakes.create(f"{lake}/{table}", table)
    data = pa.Table.from_pylist(rows, schema=lakes.SCHEMAS[table])
    deltalake.write_deltalake(f"{lake}/{table}", data, mode="append")


def images(lake: str, labels: list[str | None], errors: dict[int, str] | None = None) -> list[str]:
    """One image a label, in the folder of its name; gives back the image_ids."""
    now = datetime.now(UTC)
    rows = [
        {
            "path": f"/photos/{label}/{number:03}.jpg",
            "image_id": image_id(number),
            "label": label,
            "error": (errors or {}).get(number),
            "ingested_at": now,
            "size_bytes": 10,
        }
        for number, label in enumerate(labels)
    ]
    write(lake, "images", rows)
    return [row["image_id"] for row in rows]


def say(
    lake: str,
    version,
    answers: dict[str, str | None],
    *,
    score: float = 0.9,
    error: str = "undecodable",
) -> None:
    """Answers of a version: label by image_id; None = the error."""
    rows = [
        {
            "image_id": key,
            "model_name": version.name,
            "model_version": version.version,
            "model_id": version.model_id,
            "label": label,
            "score": None if label is None else score,
            "top_labels": None if label is None else [label],
            "top_scores": None if label is None else [score],
            "error": error if label is None else None,
        }
        for key, label in answers.items()
    ]
    write(lake, "predictions", rows)


def serve(lake: str, pointer: str, version) -> None:
    row = {
        "pointer": pointer,
        "model_name": version.name,
        "model_version": version.version,
        "model_id": version.model_id,
        "state": "serving",
        "coverage": 1.0,
        "at": datetime.now(UTC),
    }
    write(lake, "rollouts", [row])

"""Rows of real Delta tables and registered versions without Spark, networks or photos."""

import hashlib
import time
from collections.abc import Iterable
from datetime import UTC, datetime

import deltalake
import pyarrow as pa
from mlflow import MlflowClient

from mlproject import arrow_tables, lakes
from mlproject.registry import Version, resolve
from mlproject.scoring import Scored


def image_id(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def add_images(lake: str, numbers: Iterable[int], *, size_bytes: int = 1000, **facts) -> int:
    """Rows of `images`, as ingest makes them; the version that holds them."""
    now = datetime.now(UTC)
    rows = [
        {
            "path": f"/photos/{number}.jpg",
            "image_id": image_id(number),
            "size_bytes": size_bytes,
            "modified_at": now,
            "ingested_at": now,
            **facts,
        }
        for number in numbers
    ]
    table = pa.Table.from_pylist(rows, schema=lakes.SCHEMAS["images"])
    while True:
        added = arrow_tables.append(table, arrow_tables.snapshot(lake, "images", "ingest"))
        if added is not None:
            return added.version


def add_predictions(
    lake: str, version: Version, ids: Iterable[str], *, errors: Iterable[str] = (), **facts
) -> None:
    """Rows of `predictions`, as score makes them."""
    arrow_tables.snapshot(lake, "predictions", "")
    wrong = set(errors)
    rows = [
        {
            "image_id": one,
            "model_name": version.name,
            "model_version": version.version,
            "model_id": version.model_id,
            "label": None if one in wrong else "daisy",
            "score": None if one in wrong else 0.9,
            "error": "undecodable" if one in wrong else None,
            "run_id": "run",
            "images_version": 1,
            "scored_at": datetime.now(UTC),
            **facts,
        }
        for one in ids
    ]
    deltalake.write_deltalake(
        f"{lake}/predictions",
        pa.Table.from_pylist(rows, schema=lakes.SCHEMAS["predictions"]),
        mode="append",
    )


def said_by(lake: str, version: Version) -> set[str]:
    found = arrow_tables.query(
        lake,
        f"SELECT image_id FROM predictions WHERE model_id = '{version.model_id}'",
        ["predictions"],
    )
    return set(found["image_id"].to_pylist())


def pending(lake: str, version: Version) -> list[str]:
    every = arrow_tables.query(lake, "SELECT DISTINCT image_id FROM images", ["images"])
    return sorted(set(every["image_id"].to_pylist()) - said_by(lake, version))


def register(client: MlflowClient, name: str) -> Version:
    """A registered version without files."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    source = f"/nowhere/{time.time_ns()}"
    number = client.create_model_version(name, source).version
    return resolve(client, f"models:/{name}/{number}")


def scored(lake: str, images: int, errors: int = 0) -> Scored:
    version = arrow_tables.newest(lake, "images").version
    return Scored(images, errors, images * 1000, 0, 1.0, version, 0)

"""Data files whose logged path delta-rs cannot remove: moved once to paths that it can.

Spark wrote predictions of older releases into folders named by the model, and logs such names with
letters outside ASCII as they are ('模型'); delta-rs 1.6.6 logs the removal of every path with these
percent-encoded, so that it removes nothing. Such lakes lie in local folders only: older releases
scored into no others.
"""

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from deltalake import DeltaTable

from mlproject.errors import UserError
from mlproject.lake import data_files
from mlproject.lake.location import is_local
from mlproject.lake.snapshots import REWRITE, counter, logged_files, open_table
from mlproject.storage.local_files import local_path


def move(table: DeltaTable, path: str) -> bool:
    """Gives data files with such paths other names, in one commit; whether there were any.

    The rows and their files' bytes stay the same. A kill leaves links that no commit names. Raises
    UserError where the table lies on object storage.
    """
    while True:
        old = [add for add in logged_files(table) if not add["path"].isascii()]
        if not old:
            return False
        if not is_local(path):
            raise UserError(
                f"Table {path!r} has files such as {old[0]['path']!r}, which cannot be removed on "
                "object storage. Copy the lake into a local folder, and name that: -P lake=FOLDER"
            )
        if _commit(table, local_path(path), old):
            return True
        table = open_table(path)


def _commit(table: DeltaTable, folder: Path, old: list[dict[str, Any]]) -> bool:
    """Writes the commit after the table's version; False when another came first."""
    version, now = table.version(), int(time.time() * 1000)
    note = {"timestamp": now, "operation": "WRITE", "mlproject.operation": REWRITE}
    transaction = {"appId": REWRITE, "version": counter(table, REWRITE) + 1}
    actions: list[dict[str, Any]] = [{"commitInfo": note}, {"txn": transaction}]
    links = []
    for add in old:
        name = f"part-{version:020}-{uuid.uuid4()}.parquet"
        os.link(folder / unquote(add["path"]), folder / name)
        links.append(folder / name)
        same = {
            "partitionValues": {key: str(value) for key, value in add["partition"].items()},
            "size": add["size_bytes"],
            "dataChange": False,
        }
        removed = {"path": add["path"], "deletionTimestamp": now, "extendedFileMetadata": True}
        statistics = json.dumps(data_files.statistics_of(add), ensure_ascii=False)
        added = {"path": name, "modificationTime": add["modification_time"], "stats": statistics}
        actions += [{"remove": {**removed, **same}}, {"add": {**added, **same}}]
    log = folder / "_delta_log"
    part = log / f".{uuid.uuid4()}"
    try:
        lines = [json.dumps(action, ensure_ascii=False) for action in actions]
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.link(part, log / f"{version + 1:020}.json")  # fails where another commit is
    except FileExistsError:
        for link in links:
            link.unlink()
        return False
    finally:
        part.unlink(missing_ok=True)
    return True

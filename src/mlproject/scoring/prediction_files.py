"""Tasks write prediction rows as data files, and describe them to the driver, which commits them.

Spark's workers import this module: it needs no MLflow, no framework and no Spark SQL.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

import pyarrow as pa

from mlproject.lake import data_files
from mlproject.lake.data_files import DataFile
from mlproject.lake.schemas import SCHEMAS

DESCRIPTION = "description string"  # what a task returns: a row for its file

Batches = Iterator[pa.RecordBatch]


class NotWrittenError(Exception):
    """A task could not write its data file, as on a full disk: no fault of the version."""


def writer(
    path: str, version: int, partition_values: dict[str, str]
) -> Callable[[Batches], Batches]:
    """A function for `mapInArrow`: prediction rows in, the description of their data file out.

    Each attempt of a task writes a file with a name of its own, and Spark returns the description
    of the successful attempt only. So no file of a retried or speculative task is committed twice.
    The arguments are those of `data_files.write`.
    """

    def write(batches: Batches) -> Batches:
        tables = data_files.row_groups(batches)
        try:
            file = data_files.write(
                tables, SCHEMAS["predictions"], path, version, partition_values=partition_values
            )
        except OSError as error:
            raise NotWrittenError(" ".join(str(error).split())) from error
        if file is not None:
            yield pa.RecordBatch.from_pydict({"description": [json.dumps(asdict(file))]})

    return write


def described(descriptions: Iterable[str]) -> list[DataFile]:
    """The files that tasks have written, from their descriptions."""
    return [DataFile(**json.loads(one)) for one in descriptions]

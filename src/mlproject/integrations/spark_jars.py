"""Jars of Delta and of object stores for new Spark sessions: Ivy fetches them once.

Those of S3 are the least that Hadoop's S3A needs to read: 18 MB, and not the 686 MB of the whole
SDK on which it depends.
"""

import os
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from mlproject.storage.local_files import cache_folder, cache_folders, write_whole

# Of hadoop-aws and its SDK. Source: the dependencies of Spark 4.2's hadoop-client-api, 3.5.0
HADOOP, SDK = "3.5.0", "2.35.4"
MEGABYTES = {"": 13, "s3": 31, "gs": 48, "abfss": 14}  # of all jars, by store
STORES = {  # as `object_storage.store_of` names them
    "s3": (
        f"org.apache.hadoop:hadoop-aws:{HADOOP}",
        *(f"software.amazon.awssdk:{name}:{SDK}" for name in ("s3", "s3-transfer-manager", "sts")),
    ),
    "gs": (f"org.apache.hadoop:hadoop-gcp:{HADOOP}",),
    "abfss": (f"org.apache.hadoop:hadoop-azure:{HADOOP}",),
}

# Dependencies that Spark contains, or that reading does not need.
LEFT_OUT = (
    "com.fasterxml.jackson.*:*",
    "com.github.luben:*",
    "com.google.code.findbugs:*",
    "com.microsoft.azure:*",
    "commons-*:*",
    "io.airlift:*",
    "io.netty:*",
    "javax.annotation:*",
    "org.apache.commons:*",
    "org.apache.hadoop.thirdparty:*",
    "org.apache.hadoop:hadoop-client-*",
    "org.apache.hadoop:hadoop-common",
    "org.apache.httpcomponents:*",
    "org.apache.logging.log4j:*",
    "org.apache.parquet:*",
    "org.apache.spark:*",
    "org.hdrhistogram:*",
    "org.locationtech.jts:*",
    "org.roaringbitmap:*",
    "org.slf4j:*",
    "org.wildfly.openssl:*",
    "org.xerial.snappy:*",
    "software.amazon.awssdk:bundle",
)


def known(store: str = "") -> list[str]:
    """Their paths from the last fetch, empty when one of the files cannot be read.

    A session without a store has those of the first one that were fetched.
    """
    names = [_list(store)] if store else [_list(name) for name in (*STORES, "")]
    for file in (folder / name for name in names for folder in cache_folders()):
        jars = file.read_text(encoding="utf-8").split("\n") if os.access(file, os.R_OK) else []
        if jars and all(os.access(jar, os.R_OK) for jar in jars):
            return jars
    return []


def packages(store: str = "") -> str:
    """The Maven coordinates of the Delta release for this Spark, and of a store's file system."""
    spark = ".".join(metadata.version("pyspark").split(".")[:2])
    delta = f"io.delta:delta-spark_{spark}_2.13:{metadata.version('delta-spark')}"
    return ",".join([delta, *(STORES[store] if store else ())])


def fetch(jvm: Any, given: Mapping[str, str], store: str) -> None:
    """Has Ivy fetch them, where the person's settings say, and saves their paths.

    Raises:
        Py4JJavaError: They cannot be fetched.
    """
    fetched = jvm.org.apache.spark.util.DependencyUtils.resolveMavenDependencies(
        True,  # with their dependencies
        ",".join(LEFT_OUT),
        packages(store),
        given.get("spark.jars.repositories"),
        given.get("spark.jars.ivy"),
        jvm.scala.Option.apply(given.get("spark.jars.ivySettings")),
    )
    write_whole(cache_folder() / _list(store), fetched.mkString("\n"))


def _list(store: str) -> str:
    """The name of the file that lists them."""
    versions = f"{metadata.version('delta-spark')}-spark-{metadata.version('pyspark')}"
    return f"delta-{versions}{f'-{store}' if store else ''}-jars.txt"

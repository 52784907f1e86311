"""Jars of Delta and S3 for a new Spark session: Ivy fetches them once, then their paths are used.

Those of S3 are the least that Hadoop's S3A needs to read: 18 MB, and not the 686 MB of the whole
SDK on which it depends.
"""

from importlib import metadata
from pathlib import Path

from pyspark.sql import SparkSession

from mlproject.integrations import java
from mlproject.storage.local_files import write_whole

# Of hadoop-aws and its SDK. Source: the dependencies of Spark 4.2's hadoop-client-api, 3.5.0
HADOOP, SDK = "3.5.0", "2.35.4"
S3 = (
    f"org.apache.hadoop:hadoop-aws:{HADOOP}",
    *(f"software.amazon.awssdk:{name}:{SDK}" for name in ("s3", "s3-transfer-manager", "sts")),
)

# Dependencies that Spark contains, or that reading does not need.
LEFT_OUT = (
    "com.fasterxml.jackson.*:*",
    "com.github.luben:*",
    "com.google.code.findbugs:*",
    "commons-*:*",
    "io.airlift:*",
    "io.netty:*",
    "javax.annotation:*",
    "org.apache.commons:*",
    "org.apache.hadoop:hadoop-client-*",
    "org.apache.httpcomponents:*",
    "org.apache.logging.log4j:*",
    "org.apache.parquet:*",
    "org.apache.spark:*",
    "org.locationtech.jts:*",
    "org.roaringbitmap:*",
    "org.slf4j:*",
    "org.wildfly.openssl:*",
    "org.xerial.snappy:*",
    "software.amazon.awssdk:bundle",
)


def settings(*, local: bool, s3: bool) -> dict[str, str]:
    """The settings with which a new session finds them, or has Ivy fetch them.

    A local session has them on its class path, where their classes are archived too; a cluster gets
    them from the driver.
    """
    jars = known(s3=s3)
    if jars and local:
        return {"spark.driver.extraClassPath": ":".join(jars)}
    if jars:
        return {"spark.jars": ",".join(jars)}
    return {"spark.jars.packages": packages(s3=s3), "spark.jars.excludes": ",".join(LEFT_OUT)}


def known(*, s3: bool = False) -> list[str]:
    """Their paths from the last fetch, empty when one of the files is missing.

    Once those of S3 were fetched, every session has them.
    """
    for file in (_list(s3=True), _list(s3=False))[: 1 if s3 else 2]:
        jars = file.read_text(encoding="utf-8").split("\n") if file.is_file() else []
        if jars and all(Path(jar).is_file() for jar in jars):
            return jars
    return []


def packages(*, s3: bool) -> str:
    """The Maven coordinates of the Delta release for this Spark, and of S3A."""
    spark = ".".join(metadata.version("pyspark").split(".")[:2])
    delta = f"io.delta:delta-spark_{spark}_2.13:{metadata.version('delta-spark')}"
    return ",".join([delta, *S3] if s3 else [delta])


def remember(spark: SparkSession) -> None:
    """Saves the paths of the jars that Ivy fetched for a session."""
    conf = spark.sparkContext.getConf()
    for s3 in (False, True):
        if conf.get("spark.jars.packages") == packages(s3=s3) and conf.get("spark.jars"):
            jars = [jar.removeprefix("file://") for jar in str(conf.get("spark.jars")).split(",")]
            write_whole(_list(s3=s3), "\n".join(jars))


def _list(*, s3: bool) -> Path:
    versions = f"{metadata.version('delta-spark')}-spark-{metadata.version('pyspark')}"
    return java.cache_folder() / f"delta-{versions}{'-s3' if s3 else ''}-jars.txt"

"""Delta's jars for a new Spark session: Ivy fetches them once, then their paths are used."""

from importlib import metadata
from pathlib import Path

from pyspark.sql import SparkSession

from mlproject.integrations import java
from mlproject.integrations.local_files import write_whole

# Dependencies of Delta that Spark contains: 13 MB to fetch instead of 87 MB.
PARTS_OF_SPARK = (
    "com.fasterxml.jackson.*:*",
    "com.github.luben:*",
    "com.google.code.findbugs:*",
    "commons-*:*",
    "io.airlift:*",
    "javax.annotation:*",
    "org.apache.*:*",
    "org.locationtech.jts:*",
    "org.roaringbitmap:*",
    "org.slf4j:*",
    "org.xerial.snappy:*",
)


def settings(*, local: bool) -> dict[str, str]:
    """The settings with which a new session finds them, or has Ivy fetch them.

    A local session has them on its class path, where their classes are archived too; a cluster gets
    them from the driver.
    """
    jars = known()
    if jars and local:
        return {"spark.driver.extraClassPath": ":".join(jars)}
    if jars:
        return {"spark.jars": ",".join(jars)}
    return {"spark.jars.packages": package(), "spark.jars.excludes": ",".join(PARTS_OF_SPARK)}


def known() -> list[str]:
    """Their paths from the last fetch; empty when one of the files is missing."""
    jars = _list().read_text(encoding="utf-8").split("\n") if _list().is_file() else []
    return jars if all(Path(jar).is_file() for jar in jars) else []


def package() -> str:
    """The Maven coordinates of the Delta release for this Spark."""
    spark = ".".join(metadata.version("pyspark").split(".")[:2])
    return f"io.delta:delta-spark_{spark}_2.13:{metadata.version('delta-spark')}"


def remember(spark: SparkSession) -> None:
    """Saves the paths of the jars that Ivy fetched for a session."""
    conf = spark.sparkContext.getConf()
    if conf.get("spark.jars.packages") == package() and conf.get("spark.jars"):
        jars = [jar.removeprefix("file://") for jar in str(conf.get("spark.jars")).split(",")]
        write_whole(_list(), "\n".join(jars))


def _list() -> Path:
    versions = f"{metadata.version('delta-spark')}-spark-{metadata.version('pyspark')}"
    return java.cache_folder() / f"delta-{versions}-jars.txt"

"""Delta's jars for a session of our own: fetched by Ivy once, then named by their paths."""

from importlib import metadata
from pathlib import Path

from pyspark.sql import SparkSession

from mlproject.integrations import java
from mlproject.integrations.local_files import write_whole

# What Delta asks Ivy for that Spark brings itself: 13 MB to fetch instead of 87 MB.
SPARK_BRINGS = (
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


def settings() -> dict[str, str]:
    """What tells a new session of them; Ivy fetches what is not known."""
    jars = known()
    if jars:
        return {"spark.jars": ",".join(jars)}
    return {"spark.jars.packages": package(), "spark.jars.excludes": ",".join(SPARK_BRINGS)}


def known() -> list[str]:
    """Their paths as Ivy fetched them last time; none when one of them lies there no more."""
    jars = _list().read_text(encoding="utf-8").split("\n") if _list().is_file() else []
    return jars if all(Path(jar).is_file() for jar in jars) else []


def package() -> str:
    """The Maven coordinates of the Delta that goes with this Spark."""
    spark = ".".join(metadata.version("pyspark").split(".")[:2])
    return f"io.delta:delta-spark_{spark}_2.13:{metadata.version('delta-spark')}"


def remember(spark: SparkSession) -> None:
    """Notes the paths of jars that Ivy fetched for a session."""
    conf = spark.sparkContext.getConf()
    if conf.get("spark.jars.packages") == package() and conf.get("spark.jars"):
        jars = [jar.removeprefix("file://") for jar in str(conf.get("spark.jars")).split(",")]
        write_whole(_list(), "\n".join(jars))


def _list() -> Path:
    versions = f"{metadata.version('delta-spark')}-spark-{metadata.version('pyspark')}"
    return java.cache_folder() / f"delta-{versions}-jars.txt"

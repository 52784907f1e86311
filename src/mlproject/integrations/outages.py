"""Error messages of Spark and other outside systems in one line, and whether Spark's JVM ended."""

from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError

from mlproject.errors import first_line


def error_message(error: Exception) -> str:
    """The message of an error in one line, which is never empty."""
    return spark_error(error) or first_line(error)


def spark_ended(error: Exception) -> bool:
    """Whether an error says that Spark's JVM ended, or is about to end."""
    text = _text(error)
    if isinstance(error, Py4JJavaError) and text:
        return "SparkContext was shut down" in text or "stopped SparkContext" in text
    no_answer = text.startswith("An error occurred while calling") and "Trace:" not in text
    cut_off = isinstance(error, Py4JError) and (no_answer or not text)
    return cut_off or isinstance(error, ConnectionRefusedError | Py4JNetworkError)


def spark_error(error: Exception) -> str | None:
    """The root cause in an error of Spark, such as a full disk; None for another error."""
    if spark_ended(error):
        return "its JVM ended, as one does that is stopped or out of memory (spark.driver.memory)"
    if type(error).__module__.split(".")[0] not in ("py4j", "pyspark"):
        return None
    lines = [line.strip() for line in _text(error).splitlines() if line.strip()] or [""]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    if "Python worker" in lines[0]:  # a traceback, whose last line is the error
        return lines[-1]
    if lines[0].startswith("An error occurred while calling"):  # Java's message follows
        lines = [line.removeprefix(": ") for line in lines[1:]] or lines
    return causes[-1] if causes else lines[0]


def _text(error: Exception) -> str:
    try:
        return str(error)
    except (Py4JError, OSError):  # an error of Java asks the JVM for its message
        return ""

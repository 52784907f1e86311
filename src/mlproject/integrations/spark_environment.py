"""What Spark's JVM takes from its surroundings, and what it is given where a container lacks it.

A locale, a user, a home folder, a host name, and certificates: Java reads no PEM files.
"""

import codecs
import hashlib
import locale
import os
import pwd
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlproject.errors import UserError
from mlproject.storage.local_files import cache_folder, user_name, write_whole
from mlproject.storage.object_storage import certificates

PASSWORD = "changeit"  # noqa: S105 - Java wants one; certificates are no secrets


@contextmanager
def complete(*, jars: Sequence[str], alone: bool) -> Iterator[None]:
    """Environment variables for a JVM that the block starts.

    Args:
        jars: Jars behind those of Spark on its class path. A setting would be replaced by one of
            the person, of which there are three. Source: spark-launcher, AbstractCommandBuilder.
        alone: Whether nobody connects to it from another machine.
    """
    wanted = {}
    if jars:
        others = filter(None, [os.environ.get("SPARK_DIST_CLASSPATH")])
        wanted["SPARK_DIST_CLASSPATH"] = os.pathsep.join([*others, *jars])
    # Java would read and write `?` for other letters in paths.
    if codecs.lookup(locale.getencoding()).name == "ascii":
        wanted["LC_ALL"] = "C.UTF-8"
    options = os.environ.get("SPARK_SUBMIT_OPTS", "")
    for name, folder in _folders().items():
        if f"-D{name}=" not in options:
            options = f"{options} '-D{name}={folder}'"
    wanted["SPARK_SUBMIT_OPTS"] = options
    # A container's own name may have no address, and that of a laptop may change.
    if alone and "SPARK_LOCAL_IP" not in os.environ:
        wanted["SPARK_LOCAL_IP"] = "127.0.0.1"
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _folders() -> dict[str, Path]:
    """Folders where Java itself would take one that it cannot write, or another than Python."""
    found, home = {}, _passwd_home()
    if not (home and os.access(home, os.W_OK)):  # Ivy would end with `basedir must be absolute`
        found["user.home"] = cache_folder()
    if os.environ.get("TMPDIR"):
        found["java.io.tmpdir"] = Path(tempfile.gettempdir())
    return found


def log_in(jvm: Any) -> None:
    """Names the user for Hadoop where the system has no name, of which Hadoop's login fails."""
    if _passwd_home() is None:
        users = jvm.org.apache.hadoop.security.UserGroupInformation
        users.setLoginUser(users.createRemoteUser(user_name()))


def _passwd_home() -> str | None:
    """The home folder of this process's user, as Java finds it; None = the user is not known."""
    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None


def trust_store(store: str) -> Path | None:
    """A file for JVMs with the certificates for a store that are named, and the public ones.

    None where no file is named: AWS_CA_BUNDLE for S3, else SSL_CERT_FILE.

    Raises:
        UserError: The file cannot be read.
    """
    name = "AWS_CA_BUNDLE" if store == "s3" else "SSL_CERT_FILE"
    bundle = certificates() if store == "s3" else os.environ.get(name, "")
    if not bundle:
        return None
    import certifi  # these take 0.1 s to import
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    try:
        content = Path(bundle).read_bytes()
        own = _certificates(content)
    except (OSError, ValueError) as error:
        raise UserError(f"{name}={bundle!r} is no file of certificates (PEM): {error}") from error
    trusted = cache_folder() / f"trusted-{hashlib.sha256(content).hexdigest()[:12]}.p12"
    if not trusted.is_file():
        public = _certificates(Path(certifi.where()).read_bytes())
        entries = [
            pkcs12.PKCS12Certificate(one, str(number).encode())
            for number, one in enumerate(dict.fromkeys([*own, *public]))
        ]
        encryption = BestAvailableEncryption(PASSWORD.encode())
        write_whole(trusted, pkcs12.serialize_java_truststore(entries, encryption))
    return trusted


def trust_options(trusted: Path | str) -> tuple[str, ...]:
    """The options of a JVM that trusts what is in the file of `trust_store`."""
    return (
        f"'-Djavax.net.ssl.trustStore={trusted}'",
        "-Djavax.net.ssl.trustStoreType=PKCS12",
        f"-Djavax.net.ssl.trustStorePassword={PASSWORD}",
    )


def trust_settings(trusted: Path) -> dict[str, str]:
    """Settings of a session on a cluster; executors find the file in the folder they run in.

    `SparkContext.addFile` puts it there before their first task.
    """
    return {
        "spark.driver.extraJavaOptions": " ".join(trust_options(trusted)),
        "spark.executor.extraJavaOptions": " ".join(trust_options(trusted.name)),
    }


def _certificates(content: bytes) -> list[Any]:
    from cryptography import x509

    with warnings.catch_warnings(action="ignore"):  # some public ones have odd serial numbers
        return x509.load_pem_x509_certificates(content)

"""Certificates of AWS_CA_BUNDLE for Java, which reads no PEM files, in a file of its own kind."""

import hashlib
import warnings
from pathlib import Path
from typing import Any

from mlproject.errors import UserError
from mlproject.integrations import java
from mlproject.storage.local_files import write_whole
from mlproject.storage.object_storage import certificates

PASSWORD = "changeit"  # noqa: S105 - Java wants one; certificates are no secrets


def options() -> tuple[str, ...]:
    """The options of a JVM that trusts these certificates and the public ones, if any are named.

    Raises:
        UserError: The file cannot be read.
    """
    bundle = certificates()
    if not bundle:
        return ()
    import certifi  # these take 0.1 s to import
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    try:
        content = Path(bundle).read_bytes()
        own = _certificates(content)
    except (OSError, ValueError) as error:
        raise UserError(
            f"AWS_CA_BUNDLE={bundle!r} is no file of certificates (PEM): {error}"
        ) from error
    store = java.cache_folder() / f"trusted-{hashlib.sha256(content).hexdigest()[:12]}.p12"
    if not store.is_file():
        public = _certificates(Path(certifi.where()).read_bytes())
        entries = [
            pkcs12.PKCS12Certificate(one, str(number).encode())
            for number, one in enumerate(dict.fromkeys([*own, *public]))
        ]
        encryption = BestAvailableEncryption(PASSWORD.encode())
        write_whole(store, pkcs12.serialize_java_truststore(entries, encryption))
    return (
        f"'-Djavax.net.ssl.trustStore={store}'",
        "-Djavax.net.ssl.trustStoreType=PKCS12",
        f"-Djavax.net.ssl.trustStorePassword={PASSWORD}",
    )


def _certificates(content: bytes) -> list[Any]:
    from cryptography import x509

    with warnings.catch_warnings(action="ignore"):  # some public ones have odd serial numbers
        return x509.load_pem_x509_certificates(content)

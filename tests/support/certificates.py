"""A server's certificate of an authority that nobody trusts."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Pair = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def write(folder: Path, name: str = "127.0.0.1") -> tuple[Path, Path, Path]:
    """Files in a folder: the authority's certificate, that of the server `name`, and its key."""
    authority = _signed("a test's authority", None)
    server, key = _signed(name, authority)
    files = folder / "authority.pem", folder / "server.pem", folder / "key.pem"
    pem = serialization.Encoding.PEM
    files[0].write_bytes(authority[0].public_bytes(pem))
    files[1].write_bytes(server.public_bytes(pem))
    kind, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    files[2].write_bytes(key.private_bytes(pem, kind, bare))
    return files


def _signed(name: str, by: Pair | None) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by[0].subject if by else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(by is None, None), critical=True)
    )
    if by:
        is_address = name[0].isdigit()
        place = x509.IPAddress(ipaddress.ip_address(name)) if is_address else x509.DNSName(name)
        built = built.add_extension(x509.SubjectAlternativeName([place]), critical=False)
    return built.sign(by[1] if by else key, hashes.SHA256()), key

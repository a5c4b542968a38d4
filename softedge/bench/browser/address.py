"""How a phone finds this computer: its address in the network, a certificate for https, and a QR code."""

from __future__ import annotations

import datetime
import hashlib
import io
import ipaddress
import shutil
import socket
import ssl
import subprocess
import sys
from pathlib import Path

from softedge.bench.base import last_line
from softedge.errors import UserError

_DAYS = 30


def lan_address() -> str:
    """This computer's address in its network: the one it would send from.  127.0.0.1 when it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address (RFC 5737); nothing is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def certificate(host: str, folder: Path) -> tuple[Path, Path, str]:
    """A self-signed certificate for ``host`` below ``folder``: certificate, key, SHA-256 fingerprint.

    Made by the openssl program, else by the ``cryptography`` package.
    """
    paths = folder / "certificate.pem", folder / "key.pem"
    if shutil.which("openssl"):
        _by_openssl(host, *paths)
    else:
        _by_cryptography(host, *paths)
    paths[1].chmod(0o600)
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(paths[0].read_text())).hexdigest().upper()
    return *paths, ":".join(digest[i : i + 2] for i in range(0, len(digest), 2))


def _alternative_name(host: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        return f"DNS:{host}"


def _by_openssl(host: str, certificate_path: Path, key_path: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key_path), "-out", str(certificate_path), "-days", str(_DAYS), "-subj", "/CN=softedge"]
    command += ["-addext", f"subjectAltName={_alternative_name(host)}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise UserError(f"openssl could not make a certificate for {host}: {last_line(done.stderr)}")


def _by_cryptography(host: str, certificate_path: Path, key_path: Path) -> None:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError as error:
        raise UserError(
            "https needs a certificate, and neither the openssl program nor the cryptography package is here; "
            "install one (pip install cryptography), or use plain http (browser:) or a cable (browser:adb=1)"
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "softedge")])
    try:
        other: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        other = x509.DNSName(host)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([other]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def show_qr(url: str) -> None:
    """Print a QR code of ``url`` to the terminal (nothing when piped: a log cannot be photographed)."""
    if sys.stderr.isatty():
        print(qr(url), file=sys.stderr, flush=True)


def qr(url: str) -> str:
    """A QR code in half blocks, white on black whatever the terminal's own colours: phones do not read negatives."""
    import segno

    drawn = io.StringIO()
    segno.make(url, error="m").terminal(out=drawn, compact=True)
    return "\n".join(f"\x1b[97;40m{line}\x1b[0m" for line in drawn.getvalue().splitlines())

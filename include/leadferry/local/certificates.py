"""Certificates for the receivers of the try-out and the tests, by an authority of their own."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST = "127.0.0.1"


def certificates(state: Path, *, name: str, addresses: Sequence[str] = (HOST,)) -> Path:
    """Make an authority and a server's certificate the first time; return the authority's PEM file.

    Args:
        state: where they stay: `ca.pem`, `<name>.pem` and `<name>.key`.
        name: of the receiver.
        addresses: IP addresses that the certificate is good for, besides `localhost`.
    """
    ca_file = state / "ca.pem"
    if not ca_file.exists():
        authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        authority = _certificate(
            "Leadferry try-out authority", key=authority_key, signed_by=authority_key, issuer=None
        )
        server = _certificate(
            "localhost", key=key, signed_by=authority_key, issuer=authority, addresses=addresses
        )
        (state / f"{name}.key").touch(mode=0o600)
        pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
        (state / f"{name}.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
        (state / f"{name}.pem").write_bytes(server.public_bytes(pem))
        ca_file.write_bytes(authority.public_bytes(pem))
    return ca_file.resolve()


def _certificate(
    name: str,
    *,
    key: ec.EllipticCurvePrivateKey,
    signed_by: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    addresses: Sequence[str] = (),
) -> x509.Certificate:
    """Make a certificate that is good for ten years; without an issuer, an authority's own."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issuer is None,
        crl_sign=issuer is None,
        encipher_only=False,
        decipher_only=False,
    )
    building = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signed_by.public_key()), critical=False
        )
    )
    if issuer is not None:
        names: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            *(x509.IPAddress(ipaddress.ip_address(address)) for address in addresses),
        ]
        building = building.add_extension(x509.SubjectAlternativeName(names), critical=False)
        building = building.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return building.sign(signed_by, hashes.SHA256())

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pyrage
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from leadferry.errors import RenderError
from leadferry.packing.age import Age

pytestmark = pytest.mark.req("R093")
IDENTITY = pyrage.x25519.Identity.generate()


def public(identity) -> str:
    return str(identity.to_public())


@pytest.mark.parametrize("armor", [False, True])
def test_age_decrypts_for_each_recipient_and_for_nobody_else(pack, leads, run, tmp_path, armor):
    keys = {name: tmp_path / name for name in ("one", "two", "stranger")}
    for path in keys.values():
        run("age-keygen", "-o", path)
    recipients = [run("age-keygen", "-y", keys[name]).stdout.decode().strip() for name in ("one", "two")]

    packed = pack(Age(recipients=recipients, armor=armor), leads, config=tmp_path)

    assert packed.startswith(b"-----BEGIN AGE" if armor else b"age-encryption.org/v1")
    for name in ("one", "two"):
        assert run("age", "-d", "-i", keys[name], input=packed).stdout == leads
    assert run("age", "-d", "-i", keys["stranger"], input=packed).returncode != 0


def test_an_ssh_key_may_be_a_recipient(pack, leads, run, tmp_path):
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    openssh = key.public_key().public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH).decode()
    private = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.OpenSSH, s.NoEncryption())
    (tmp_path / "id").write_bytes(private)
    (tmp_path / "id").chmod(0o600)

    packed = pack(Age(recipients=[openssh + " buyer@example.com"]), leads, config=tmp_path)

    assert run("age", "-d", "-i", tmp_path / "id", input=packed).stdout == leads


@settings(max_examples=30, deadline=None)
@given(pieces=st.lists(st.binary(max_size=2000), max_size=5))
def test_any_bytes_come_back(pieces):
    out = BytesIO()
    with Age(recipients=[public(IDENTITY)]).open(out, name="x", config=Path()) as writer:
        for piece in pieces:
            writer.write(piece)

    assert pyrage.decrypt(out.getvalue(), [IDENTITY]) == b"".join(pieces)


@pytest.mark.parametrize("key", ["AGE-SECRET-KEY-1QQQ", "me", "-----BEGIN OPENSSH PRIVATE KEY-----"])
def test_what_is_no_public_key_is_no_recipient(key):
    with pytest.raises(ValidationError):
        Age(recipients=[key])


def test_a_mistyped_key_stops_before_anything_is_written(write_only):
    out = write_only()
    packing = Age(recipients=[public(IDENTITY)[:-1] + "b"])

    with pytest.raises(RenderError, match="it is no valid public key"):
        packing.open(out, name="x", config=Path())

    assert out.content == b""
    (problem,) = packing.key_problems(
        config=Path(), now=datetime(2026, 1, 31, tzinfo=UTC), ahead=timedelta(0), connections=False
    )
    assert problem.fatal

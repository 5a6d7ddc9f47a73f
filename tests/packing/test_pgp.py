from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from pysequoia import Cert, PySigner, Sig, Tsk, decrypt

from leadferry.errors import RenderError
from leadferry.packing.pgp import Pgp
from leadferry.secrets import FromConnection

pytestmark = [pytest.mark.req("F19"), pytest.mark.req("R093")]
DAY = 86_400


def tsk(name: str = "Buyer", **options) -> Tsk:
    return Tsk.generate(user_id=f"{name} <{name.lower()}@example.com>", **options)


@pytest.fixture
def keys(tmp_path: Path):
    """Put a public key into the config folder."""
    folder = tmp_path / "keys"
    folder.mkdir()

    def put(name: str, content: object) -> None:
        (folder / f"{name}.asc").write_text(str(content))

    return put


def problems(packing: Pgp, config: Path, *, ahead: int = 0, after: int = 0, **more):
    now = datetime.now(UTC) + timedelta(days=after)
    return list(packing.key_problems(config=config, now=now, ahead=timedelta(days=ahead), **more))


@pytest.mark.parametrize("armor", [False, True])
def test_gnupg_decrypts_for_each_recipient_and_verifies_the_signature(  # noqa: PLR0913, PLR0917  (parameters and fixtures)
    pack, leads, keys, gnupg, connection, tmp_path, armor
):
    for name in ("acme", "auditor"):
        gnupg(
            "--passphrase",
            "",
            "--quick-gen-key",
            f"{name} <{name}@example.com>",
            "future-default",
            "default",
            "1y",
        )
        keys(name, gnupg("--armor", "--export", f"{name}@example.com").stdout.decode())
    gnupg(
        "--passphrase",
        "our words",
        "--quick-gen-key",
        "ours <ours@example.com>",
        "future-default",
        "default",
        "1y",
    )
    secret = gnupg("--passphrase", "our words", "--armor", "--export-secret-keys", "ours@example.com").stdout
    connection("our_pgp", password="our words", extra={"private_key": secret.decode()})
    packing = Pgp(recipients=["acme", "auditor"], sign=FromConnection(connection="our_pgp"), armor=armor)

    (tmp_path / "packed").write_bytes(pack(packing, leads, config=tmp_path))

    for forgotten in ("auditor", "acme"):
        # Alone with one of the two private keys, then with none.
        fingerprint = re.findall(
            rb"^fpr:::::::::(\w+):",
            gnupg("--with-colons", "-K", f"{forgotten}@example.com").stdout,
            re.MULTILINE,
        )[0]
        if forgotten == "acme":
            (tmp_path / "acme.key").write_bytes(gnupg("--export-secret-keys", "acme@example.com").stdout)
        gnupg("--yes", "--delete-secret-keys", fingerprint.decode())
        opened = gnupg("--status-fd", "2", "--decrypt", tmp_path / "packed")
        if forgotten == "auditor":
            assert opened.stdout == leads
            assert b"GOODSIG" in opened.stderr
            assert b"ours <ours@example.com>" in opened.stderr
        else:
            assert opened.returncode != 0
            assert opened.stdout == b""


def test_gnupg_reads_what_is_not_signed_with_its_integrity_protected(pack, leads, keys, gnupg, tmp_path):
    gnupg("--passphrase", "", "--quick-gen-key", "acme <acme@example.com>", "rsa3072", "default", "1y")
    gnupg("--passphrase", "", "--quick-add-key", _fingerprint(gnupg), "rsa3072", "encr", "1y")
    keys("acme", gnupg("--armor", "--export", "acme@example.com").stdout.decode())

    packed = pack(Pgp(recipients=["acme"]), leads, config=tmp_path)

    assert gnupg("--decrypt", input=packed).stdout == leads
    changed = bytearray(packed)
    changed[-30] ^= 1
    assert gnupg("--decrypt", input=bytes(changed)).returncode != 0


def _fingerprint(gnupg) -> str:
    return re.findall(r"^fpr:::::::::(\w+):", gnupg("--with-colons", "-k").stdout.decode(), re.MULTILINE)[0]


def test_a_key_may_come_from_a_connection(pack, leads, connection, tmp_path):
    buyer = tsk()
    connection("acme_pgp", extra={"public_key": str(buyer.extract_certificate())})

    packed = pack(Pgp(recipients=[FromConnection(connection="acme_pgp")]), leads, config=tmp_path)

    assert decrypt(packed, decryptor=buyer.decryptor()).bytes == leads


@pytest.mark.parametrize("data", [b"", b"x", bytes(70_000)])
def test_any_size_comes_back(pack, keys, tmp_path, data):
    buyer = tsk()
    keys("acme", buyer.extract_certificate())

    packed = pack(Pgp(recipients=["acme"]), data, config=tmp_path)

    assert decrypt(packed, decryptor=buyer.decryptor()).bytes == data


def revoked(key: Tsk) -> Cert:
    cert = key.extract_certificate()
    revocation: Sig = cert.revoke(certifier(key))
    return Cert.from_bytes(bytes(cert) + bytes(revocation))


def certifier(key: Tsk) -> PySigner:
    return key.certifier()


def expired(key: Tsk) -> Cert:
    return key.extract_certificate().set_expiration(datetime.now(UTC) - timedelta(days=1), certifier(key))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (lambda: None, "there is no such file"),
        (lambda: "no key", "must hold one public PGP key, and holds 0"),
        (lambda: str(tsk()), "holds a private key"),
        (lambda: revoked(tsk()), "the key is revoked"),
    ],
    ids=["missing", "junk", "private", "revoked"],
)
def test_an_unusable_key_stops_before_anything_is_written(keys, tmp_path, write_only, content, told):
    if (key := content()) is not None:
        keys("acme", key)
    out = write_only()
    packing = Pgp(recipients=["acme"])

    with pytest.raises(RenderError, match=rf"config/keys/acme\.asc: {told}"):
        packing.open(out, name="x", config=tmp_path)

    assert out.content == b""
    assert [problem.fatal for problem in problems(packing, tmp_path)] == [True]


def test_an_expired_key_stops_before_anything_is_written(keys, gnupg, tmp_path, write_only):
    """Made by GnuPG in the year 2001, for a month."""
    gnupg("--faked-system-time", "20010101T000000!", "--passphrase", "", "--quick-gen-key",
          "acme <acme@example.com>", "future-default", "default", "1m")  # fmt: skip
    keys("acme", gnupg("--armor", "--export").stdout.decode())
    out = write_only()

    with pytest.raises(RenderError, match=r"config/keys/acme\.asc: the key expired on 2001-01-31") as told:
        Pgp(recipients=["acme"]).open(out, name="x", config=tmp_path)

    assert "nothing was written or sent" in str(told.value)
    assert out.content == b""


def test_an_expired_subkey_stops_although_the_key_itself_lives(keys, gnupg, tmp_path):
    """Here the library would encrypt all the same, and GnuPG would not."""
    gnupg("--faked-system-time", "20010101T000000!", "--passphrase", "", "--quick-gen-key",
          "acme <acme@example.com>", "ed25519", "cert", "never")  # fmt: skip
    gnupg("--faked-system-time", "20010101T000000!", "--passphrase", "", "--quick-add-key",
          _fingerprint(gnupg), "cv25519", "encr", "1m")  # fmt: skip
    keys("acme", gnupg("--armor", "--export").stdout.decode())

    (problem,) = problems(Pgp(recipients=["acme"]), tmp_path)

    assert problem.fatal
    assert "the key expired on 2001-01-31" in str(problem)


def test_of_an_old_and_a_new_subkey_only_the_new_one_is_used(pack, leads, keys, gnupg, tmp_path):
    gnupg("--faked-system-time", "20010101T000000!", "--passphrase", "", "--quick-gen-key",
          "acme <acme@example.com>", "ed25519", "cert", "never")  # fmt: skip
    gnupg("--faked-system-time", "20010101T000000!", "--passphrase", "", "--quick-add-key",
          _fingerprint(gnupg), "cv25519", "encr", "1m")  # fmt: skip
    gnupg("--passphrase", "", "--quick-add-key", _fingerprint(gnupg), "cv25519", "encr", "1y")
    keys("acme", gnupg("--armor", "--export").stdout.decode())
    ids = re.findall(r"^sub:\w?:\d+:\d+:(\w+):", gnupg("--with-colons", "-k").stdout.decode(), re.MULTILINE)

    packed = pack(Pgp(recipients=["acme"]), leads, config=tmp_path)

    listing = gnupg("--list-only", "--list-packets", input=packed).stdout.decode()
    assert re.findall(r"keyid (\w+)", listing) == [ids[1]]


def test_expiry_is_announced_days_ahead_and_is_no_obstacle_until_then(keys, tmp_path):
    keys("acme", tsk(validity_seconds=30 * DAY).extract_certificate())
    packing = Pgp(recipients=["acme"])

    assert problems(packing, tmp_path, ahead=14) == []
    (soon,) = problems(packing, tmp_path, ahead=14, after=20)
    (late,) = problems(packing, tmp_path, ahead=14, after=31)
    assert (soon.fatal, late.fatal) == (False, True)
    assert soon.at == late.at
    assert str(soon).startswith("config/keys/acme.asc: the key expires on ")


def test_a_key_without_an_end_is_never_announced(keys, tmp_path):
    keys("acme", tsk().extract_certificate())

    assert problems(Pgp(recipients=["acme"]), tmp_path, ahead=100_000) == []


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (None, "Airflow does not know this connection"),
        ({"extra": {}}, "holds no private PGP key"),
        ({"extra": {"private_key": str(tsk().extract_certificate())}}, "holds no private PGP key"),
        (
            {"extra": {"private_key": str(tsk(validity_seconds=1))}, "after": 2},
            "signing key in connection 'our_pgp': the key expired",
        ),
    ],
    ids=["unknown", "empty", "public", "expired"],
)
def test_an_unusable_signing_key_is_told_without_its_content(keys, connection, tmp_path, fields, told):
    keys("acme", tsk().extract_certificate())
    after = (fields or {}).pop("after", 0)
    if fields is not None:
        connection("our_pgp", **fields)

    (problem,) = problems(
        Pgp(recipients=["acme"], sign=FromConnection(connection="our_pgp")), tmp_path, after=after
    )

    assert problem.fatal
    assert told in str(problem)
    assert "our_pgp" in str(problem)
    assert "BEGIN" not in str(problem)


def test_a_wrong_passphrase_is_told_without_it(keys, connection, gnupg, tmp_path, write_only):
    keys("acme", tsk().extract_certificate())
    gnupg(
        "--passphrase",
        "right",
        "--quick-gen-key",
        "ours <ours@example.com>",
        "future-default",
        "default",
        "1y",
    )
    secret = gnupg("--passphrase", "right", "--armor", "--export-secret-keys").stdout.decode()
    connection("our_pgp", password="wrong-words", extra={"private_key": secret})
    out = write_only()

    with pytest.raises(RenderError, match="cannot sign with the connection's password") as told:
        Pgp(recipients=["acme"], sign=FromConnection(connection="our_pgp")).open(
            out, name="x", config=tmp_path
        )

    assert "wrong-words" not in str(told.value)
    assert out.content == b""


@pytest.mark.parametrize("name", ["../acme", "a/b", ".hidden", "", "a..b"])
def test_a_key_file_cannot_lie_elsewhere(name):
    with pytest.raises(ValidationError):
        Pgp(recipients=[name])


def test_files_alone_are_checked_where_there_are_no_connections(keys, tmp_path):
    keys("acme", tsk().extract_certificate())
    packing = Pgp(
        recipients=["acme", FromConnection(connection="nowhere")], sign=FromConnection(connection="nowhere")
    )

    assert problems(packing, tmp_path, connections=False) == []


def test_a_child_that_dies_is_an_error(keys, tmp_path, write_only):
    keys("acme", tsk().extract_certificate())
    writer = Pgp(recipients=["acme"]).open(write_only(), name="x", config=tmp_path)
    writer._packer._process.kill()

    def write_on() -> None:
        for _ in range(100):
            writer.write(bytes(100_000))
        writer.close()

    with pytest.raises(RenderError, match="Encrypting with PGP failed"):
        write_on()
    writer.abort()

"""Encrypt and sign with OpenPGP, for recipients with GnuPG or anything else that speaks RFC 4880 or RFC 9580.

The library checks signatures and does the cryptography; whether a key may still be used is checked here, since it
encrypts for expired and revoked keys without a word.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

from pydantic import Field

from leadferry import secrets
from leadferry.errors import RenderError
from leadferry.packing.base import (
    BLOCK,
    EncryptionBase,
    KeyProblem,
    PackingWriter,
    Valve,
    refuse_fatal,
    unwritable,
)
from leadferry.secrets import FromConnection

if TYPE_CHECKING:
    from pysequoia import Cert, Tsk
    from pysequoia.packet import Packet

KeyFile = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=100)]
"""A file in `config/keys/`, without `.asc`."""

_WHAT = "Encrypting with PGP"


class Pgp(EncryptionBase):
    """A .pgp file that each recipient can open with a private key, signed if asked for."""

    type: Literal["pgp"] = "pgp"
    recipients: list[KeyFile | FromConnection] = Field(
        min_length=1,
        description="Public keys, each alone can decrypt: `acme` is config/keys/acme.asc; {connection: …} has it in"
        " its extra `public_key`.",
    )
    sign: FromConnection | None = Field(
        default=None,
        description="Our signing key: a connection whose extra `private_key` holds it, its password the passphrase.",
    )
    armor: bool = Field(default=False, description="Write text (.asc) instead of bytes, a third larger.")

    @property
    def ending(self) -> str:
        """See `PackingBase.ending`."""
        return "asc" if self.armor else "pgp"

    @property
    def media_type(self) -> str:
        """See `PackingBase.media_type`."""
        return "application/pgp-encrypted"

    def open(self, out: BinaryIO, *, name: str, config: Path) -> PackingWriter:  # noqa: ARG002 - the name stays out of it
        """See `EncryptionBase.open`."""
        keys = self._keys(config=config, connections=True, now=datetime.now(UTC))
        refuse_fatal([problem for key in keys for problem in key.problems])
        signer = next((key.secret for key in keys if key.secret is not None), None)
        order = {
            "recipients": [_text(bytes(key.cert)) for key in keys if key.cert is not None],
            "signer": _text(bytes(signer)) if signer is not None else None,
            "passphrase": next((key.passphrase for key in keys if key.passphrase), None),
            "armor": self.armor,
        }
        valve = Valve(out)
        packer = _Child(valve, json.dumps(order).encode())
        return PackingWriter(packer, valve, give_up=packer.give_up)

    def key_problems(
        self, *, config: Path, now: datetime, ahead: timedelta, connections: bool = True
    ) -> Sequence[KeyProblem]:
        """See `EncryptionBase.key_problems`."""
        found: list[KeyProblem] = []
        for key in self._keys(config=config, connections=connections, now=now):
            found += key.problems
            if not key.problems and key.expires_at is not None and key.expires_at <= now + ahead:
                what = f"the key expires on {key.expires_at:%Y-%m-%d at %H:%M} UTC; ask for a new one"
                found.append(KeyProblem(key=key.name, what=what, fatal=False, at=key.expires_at))
        return found

    def _keys(self, *, config: Path, connections: bool, now: datetime) -> list[_Key]:
        keys = [
            _recipient(one, config=config, now=now)
            for one in self.recipients
            if connections or isinstance(one, str)
        ]
        if self.sign is not None and connections:
            keys.append(_signer(self.sign.connection, now=now))
        return keys


@dataclass(frozen=True, kw_only=True)
class _Key:
    """One key of the batch file, as it is now."""

    name: str
    problems: tuple[KeyProblem, ...] = ()
    expires_at: datetime | None = None
    cert: Cert | None = None
    """What to encrypt for: only the parts that may be used."""
    secret: Tsk | None = None
    passphrase: str = ""

    @classmethod
    def unusable(cls, name: str, what: str, *, at: datetime | None = None) -> _Key:
        return cls(name=name, problems=(KeyProblem(key=name, what=what, fatal=True, at=at),))


def _recipient(written: str | FromConnection, *, config: Path, now: datetime) -> _Key:
    if isinstance(written, str):
        name = f"config/keys/{written}.asc"
        try:
            data = (config / "keys" / f"{written}.asc").read_bytes()
        except OSError:
            return _Key.unusable(name, "there is no such file, or it cannot be read")
    else:
        name = f"connection '{written.connection}'"
        try:
            data = secrets.read(written.connection).extra.get("public_key", "").encode()
        except RenderError as error:
            return _Key.unusable("encrypt", error.what)
    return _public(name, data, now=now)


def _public(name: str, data: bytes, *, now: datetime) -> _Key:
    from pysequoia import Cert, encrypt

    try:
        certs = Cert.split_bytes(data)
    except Exception:  # noqa: BLE001 - the library raises RuntimeError with a stack of its own in the text
        certs = []
    if len(certs) != 1:
        return _Key.unusable(name, f"must hold one public PGP key, and holds {len(certs)}")
    if _holds_secrets(data):
        return _Key.unusable(name, "holds a private key; only the public one belongs here")
    times = _Times.of(certs[0], use="encryption", now=now)
    if (what := times.problem(now)) is not None:
        return _Key.unusable(name, what, at=times.expires_at)
    try:
        usable = Cert.from_packets(times.packets)
        encrypt(b"", recipients=[usable])
    except Exception:  # noqa: BLE001 - as above
        return _Key.unusable(name, "the key cannot be used for encryption (too old or too weak an algorithm)")
    return _Key(name=name, expires_at=times.expires_at, cert=usable)


def _signer(connection: str, *, now: datetime) -> _Key:
    from pysequoia import Tsk

    name = f"signing key in connection '{connection}'"
    try:
        secret = secrets.read(connection)
    except RenderError as error:
        return _Key.unusable("encrypt", error.what)
    data = secret.extra.get("private_key", "").encode()
    try:
        tsk = Tsk.from_bytes(data) if _holds_secrets(data) else None
    except Exception:  # noqa: BLE001 - the library's text may hold anything
        tsk = None
    if tsk is None:
        return _Key.unusable(name, "the connection's extra `private_key` holds no private PGP key")
    times = _Times.of(tsk.extract_certificate(), use="signing", now=now)
    if (what := times.problem(now)) is not None:
        return _Key.unusable(name, what, at=times.expires_at)
    try:
        tsk.signer(secret.password or None)
    except Exception:  # noqa: BLE001 - as above
        return _Key.unusable(name, "the key cannot sign with the connection's password as its passphrase")
    return _Key(name=name, expires_at=times.expires_at, secret=tsk, passphrase=secret.password)


@dataclass(frozen=True, kw_only=True)
class _Times:
    """Until when a key can be used for something, and the parts of it that can."""

    packets: list[Packet]
    revoked: bool
    capable: bool
    """Whether any part of the key is meant for this use."""
    expires_at: datetime | None

    @classmethod
    def of(cls, cert: Cert, *, use: str, now: datetime) -> _Times:
        """Look at the primary key and at each subkey by itself: a key may live while its subkeys are dead."""
        primary, *subkeys = _parts(cert)
        meant = [part for part in (primary, *subkeys) if part.is_for(use)]
        alive = [part for part in meant if not part.revoked and (part.expires_at or _NEVER) > now]
        ends = max((part.expires_at or _NEVER for part in alive or meant if not part.revoked), default=None)
        dead = [part for part in subkeys if part in meant and part not in alive]
        known = [end for end in (ends, cert.expiration) if end is not None and end != _NEVER]
        return cls(
            packets=[packet for part in (primary, *subkeys) if part not in dead for packet in part.packets],
            revoked=cert.is_revoked or (bool(meant) and all(part.revoked for part in meant)),
            capable=bool(meant),
            expires_at=min(known, default=None),
        )

    def problem(self, now: datetime) -> str | None:
        """Say why the key cannot be used now; None when it can."""
        if self.revoked:
            return "the key is revoked"
        if not self.capable:
            return "no part of the key is meant for this use"
        if self.expires_at is not None and self.expires_at <= now:
            return f"the key expired on {self.expires_at:%Y-%m-%d at %H:%M} UTC"
        return None


_NEVER = datetime.max.replace(tzinfo=UTC)


class _Part:
    """The primary key or a subkey, with the packets that belong to it."""

    def __init__(self, key: Packet) -> None:
        self.packets = [key]
        self.revoked = False
        self._created = key.key_created
        self._binding: Packet | None = None

    def add(self, packet: Packet) -> None:
        from pysequoia.packet import SignatureType

        self.packets.append(packet)
        kind = packet.signature_type if packet.signature_created is not None else None
        if kind is not None and kind == SignatureType.SubkeyRevocation:
            self.revoked = True
        elif packet.signature_created is not None and packet.key_flags is not None:
            newest = self._binding.signature_created if self._binding is not None else None
            if newest is None or packet.signature_created >= newest:
                self._binding = packet

    @property
    def expires_at(self) -> datetime | None:
        valid = self._binding.key_validity_period if self._binding is not None else None
        return self._created + valid if self._created is not None and valid else None

    def is_for(self, use: str) -> bool:
        flags: Any = self._binding.key_flags if self._binding is not None else None
        if flags is None:
            return False
        if use == "signing":
            return bool(flags.signing)
        return bool(flags.transport_encryption or flags.storage_encryption)


def _parts(cert: Cert) -> list[_Part]:
    from pysequoia.packet import PacketPile, Tag

    parts: list[_Part] = []
    packets: Iterable[Packet] = PacketPile.from_bytes(bytes(cert))
    for packet in packets:
        if packet.tag in (Tag.PublicKey, Tag.PublicSubkey):
            parts.append(_Part(packet))
        else:
            parts[-1].add(packet)
    return parts


def _holds_secrets(data: bytes) -> bool:
    from pysequoia.packet import PacketPile, Tag

    return any(packet.tag in (Tag.SecretKey, Tag.SecretSubkey) for packet in PacketPile.from_bytes(data))


class _Child:
    """The program that encrypts: fed through its standard input, its output drained by a thread."""

    def __init__(self, valve: Valve, order: bytes) -> None:
        self._valve = valve
        reading, writing = os.pipe()
        # -P: this folder has modules named like Python's own.
        program = [sys.executable, "-P", str(Path(__file__).with_name("pgp_child.py")), str(reading)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, by its full path
                program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[reading],
            )
        finally:
            os.close(reading)
        self._drain = threading.Thread(target=self._pass_on, name="packing", daemon=True)
        self._drain.start()
        # A child that died at once shows as its exit code.
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as keys:
            keys.write(order)

    def _pass_on(self) -> None:
        output = self._process.stdout
        while output is not None and (block := output.read(BLOCK)):
            # The valve remembers the error; what is left must be drained all the same, or the child never ends.
            with suppress(BaseException):
                self._valve.write(block)
                continue
            self._valve.shut()

    def write(self, data: bytes, /) -> None:
        self._check()
        try:
            self._input.write(data)
        except BrokenPipeError:
            raise unwritable(_WHAT, "the encrypting process ended") from None

    def close(self) -> None:
        with suppress(BrokenPipeError):
            self._input.close()
        self._drain.join()
        status = self._process.wait()
        self._finish()
        self._check()
        if status != 0:
            raise unwritable(_WHAT, f"exit status {status}")

    def give_up(self) -> None:
        """Kill the child before it sees the end of its input and writes a complete message."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):
            self._input.close()
        self._drain.join()
        self._finish()

    def _check(self) -> None:
        if self._valve.error is not None:
            raise self._valve.error

    def _finish(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def _input(self) -> Any:
        return self._process.stdin


def _text(data: bytes) -> str:
    return b64encode(data).decode("ascii")

"""Encrypt an Excel workbook so that Excel itself asks for the password: MS-OFFCRYPTO, agile encryption.

AES-256 in 4096-byte segments, SHA-512, 100,000 rounds over the password: what Excel itself writes.
What is read back later is written first in this container, so the encrypted segments, and only those, wait in an
anonymous temporary file until the last one is there.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal

from leadferry.errors import RenderError
from leadferry.packing.base import BLOCK, PackingWriter, PasswordBase, Valve
from leadferry.packing.compound_file import LONGEST, Entry, compound_file

_ROUNDS = 100_000
_SEGMENT = 4096
_AES_BLOCK = 16
_LONGEST_PASSWORD = 255
"""Characters: what Excel's dialogue takes."""

_VERIFIER_INPUT = bytes.fromhex("fea7d2763b4b9e79")
_VERIFIER_HASH = bytes.fromhex("d7aa0f6d3061344e")
_KEY_VALUE = bytes.fromhex("146e0be7abacd0d6")
_HMAC_KEY = bytes.fromhex("5fb2ad010cb9e1f6")
_HMAC_VALUE = bytes.fromhex("a0677f02b22c8433")
"""Block keys of MS-OFFCRYPTO 2.3.4.13 and 2.3.4.14."""


class XlsxPassword(PasswordBase):
    """A workbook that opens only with the password of an Airflow connection; its name stays `….xlsx`."""

    formats: ClassVar[frozenset[str] | None] = frozenset({"xlsx"})
    compresses: ClassVar[bool] = True

    type: Literal["xlsx_password"] = "xlsx_password"

    @property
    def ending(self) -> None:
        """See `PackingBase.ending`."""
        return None

    @property
    def media_type(self) -> None:
        """See `PackingBase.media_type`: mail programs must still open it with Excel."""
        return None

    def open(self, out: BinaryIO, *, name: str, config: Path) -> PackingWriter:  # noqa: ARG002 - no name, no key files
        """See `EncryptionBase.open`."""
        password = self.password()
        valve = Valve(out)
        packer = _Workbook(valve, password)
        return PackingWriter(packer, valve, give_up=packer.drop)

    def unusable(self, password: str) -> str | None:
        """See `PasswordBase.unusable`."""
        if len(password) <= _LONGEST_PASSWORD:
            return None
        return f"the password is longer than the {_LONGEST_PASSWORD} characters that Excel takes"


class _Workbook:
    """Encrypts segments as they come, and writes the container around them at the end."""

    def __init__(self, valve: Valve, password: str) -> None:
        self._valve = valve
        self._key, self._salt = os.urandom(32), os.urandom(16)
        self._password = _Password(password)
        # Without a name from the start, and encrypted: nothing to find after a kill.
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close or drop
        self._spool.write(bytes(8))
        self._rest = b""
        self._segments = self._size = 0

    def write(self, data: bytes, /) -> None:
        self._size += len(data)
        if self._size > LONGEST - _SEGMENT:
            raise RenderError(
                "The workbook is larger than the 2 GB that an encrypted one may have",
                hint="Split the file, or encrypt it as zip_aes, pgp or age",
            )
        data = self._rest + data
        whole = len(data) - len(data) % _SEGMENT
        for start in range(0, whole, _SEGMENT):
            self._encrypt(data[start : start + _SEGMENT])
        self._rest = data[whole:]

    def _encrypt(self, segment: bytes) -> None:
        vector = hashlib.sha512(self._salt + struct.pack("<I", self._segments)).digest()[:_AES_BLOCK]
        self._spool.write(_aes(_padded(segment), self._key, vector))
        self._segments += 1

    def close(self) -> None:
        if self._rest:
            self._encrypt(self._rest)
        size = self._spool.tell()
        self._spool.seek(0)
        self._spool.write(struct.pack("<Q", self._size))
        secret = os.urandom(64)
        integrity = hmac.new(secret, digestmod="sha512")
        for block in self._blocks():
            integrity.update(block)
        info = self._info(secret, integrity.digest())
        entries, package = _entries(info, size)
        for part in compound_file(entries, long=package, blocks=self._blocks()):
            self._valve.write(part)
        self.drop()

    def drop(self) -> None:
        self._spool.close()

    def _blocks(self) -> Iterator[bytes]:
        self._spool.seek(0)
        while block := self._spool.read(BLOCK):
            yield block

    def _info(self, secret: bytes, digest: bytes) -> bytes:
        def sealed(value: bytes, block_key: bytes) -> str:
            vector = hashlib.sha512(self._salt + block_key).digest()[:_AES_BLOCK]
            return _text(_aes(value, self._key, vector))

        cipher = (
            'saltSize="16" blockSize="16" keyBits="256" hashSize="64" cipherAlgorithm="AES"'
            ' cipherChaining="ChainingModeCBC" hashAlgorithm="SHA512"'
        )
        password = self._password
        verifier = os.urandom(16)
        xml = (
            '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\r\n'
            '<encryption xmlns="http://schemas.microsoft.com/office/2006/encryption"'
            ' xmlns:p="http://schemas.microsoft.com/office/2006/keyEncryptor/password">'
            f'<keyData {cipher} saltValue="{_text(self._salt)}"/>'
            f'<dataIntegrity encryptedHmacKey="{sealed(secret, _HMAC_KEY)}"'
            f' encryptedHmacValue="{sealed(digest, _HMAC_VALUE)}"/>'
            '<keyEncryptors><keyEncryptor uri="http://schemas.microsoft.com/office/2006/keyEncryptor/password">'
            f'<p:encryptedKey spinCount="{_ROUNDS}" {cipher} saltValue="{_text(password.salt)}"'
            f' encryptedVerifierHashInput="{password.sealed(verifier, _VERIFIER_INPUT)}"'
            f' encryptedVerifierHashValue="{password.sealed(hashlib.sha512(verifier).digest(), _VERIFIER_HASH)}"'
            f' encryptedKeyValue="{password.sealed(self._key, _KEY_VALUE)}"/>'
            "</keyEncryptor></keyEncryptors></encryption>"
        )
        return struct.pack("<HHI", 4, 4, 0x40) + xml.encode("ascii")


class _Password:
    """Seals the workbook's random key with what people type."""

    def __init__(self, password: str) -> None:
        self.salt = os.urandom(16)
        digest = hashlib.sha512(self.salt + password.encode("utf-16-le")).digest()
        for number in range(_ROUNDS):
            digest = hashlib.sha512(struct.pack("<I", number) + digest).digest()
        self._digest = digest

    def sealed(self, value: bytes, block_key: bytes) -> str:
        return _text(_aes(value, hashlib.sha512(self._digest + block_key).digest()[:32], self.salt))


def _aes(data: bytes, key: bytes, vector: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    encryptor = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    return encryptor.update(data) + encryptor.finalize()


def _padded(segment: bytes) -> bytes:
    return segment + bytes(-len(segment) % _AES_BLOCK)


def _text(value: bytes) -> str:
    return b64encode(value).decode("ascii")


def _counted(text: str) -> bytes:
    """Return a text as MS-OFFCRYPTO writes it: length in bytes, UTF-16, filled up to four bytes."""
    data = text.encode("utf-16-le")
    return struct.pack("<I", len(data)) + data + bytes(-len(data) % 4)


_VERSIONS = struct.pack("<6H", 1, 0, 1, 0, 1, 0)
_VERSION = _counted("Microsoft.Container.DataSpaces") + _VERSIONS


def _data_space_map() -> bytes:
    entry = struct.pack("<II", 1, 0) + _counted("EncryptedPackage") + _counted("StrongEncryptionDataSpace")
    return struct.pack("<III", 8, 1, len(entry) + 4) + entry


def _data_space() -> bytes:
    return struct.pack("<II", 8, 1) + _counted("StrongEncryptionTransform")


def _transform() -> bytes:
    start = _counted("{FF9A3F03-56EF-4613-BDD5-5A41C1D07246}")
    name = _counted("Microsoft.Container.EncryptionTransform")
    length = 8 + len(start)
    return struct.pack("<II", length, 1) + start + name + _VERSIONS + struct.pack("<4I", 0, 0, 0, 4)


def _entries(info: bytes, size: int) -> tuple[list[Entry], Entry]:
    """Return the directory, and the entry of the encrypted package in it."""
    package = Entry(name="EncryptedPackage", size=size)
    entries = [
        Entry.root(child=2),
        package,
        Entry(name="EncryptionInfo", left=3, right=1, content=info),
        Entry.folder("\x06DataSpaces", child=5),
        Entry(name="Version", content=_VERSION),
        Entry(name="DataSpaceMap", left=4, right=6, content=_data_space_map()),
        Entry.folder("DataSpaceInfo", child=8, right=7),
        Entry.folder("TransformInfo", child=9),
        Entry(name="StrongEncryptionDataSpace", content=_data_space()),
        Entry.folder("StrongEncryptionTransform", child=10),
        Entry(name="\x06Primary", content=_transform()),
    ]
    return entries, package

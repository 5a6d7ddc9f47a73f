"""Encrypt as a zip file with a password: AES-256 as WinZip and 7-Zip read it.

The old encryption of zip files (ZipCrypto) can be broken in minutes and is not offered.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

from pydantic import Field

from leadferry import secrets
from leadferry.errors import RenderError
from leadferry.packing.base import EncryptionBase, KeyProblem, PackingWriter, refuse_fatal
from leadferry.packing.container import SMALL, ZipContainer


class ZipAes(EncryptionBase):
    """A .zip file that opens only with the password of an Airflow connection; it compresses as well."""

    compresses: ClassVar[bool] = True

    type: Literal["zip_aes"] = "zip_aes"
    connection: str = Field(min_length=1, description="Airflow connection whose password opens the file.")
    level: int = Field(default=6, ge=1, le=9, description="Of compression: 1 is fastest, 9 smallest.")

    @property
    def ending(self) -> str:
        """See `PackingBase.ending`."""
        return "zip"

    @property
    def media_type(self) -> str:
        """See `PackingBase.media_type`."""
        return "application/zip"

    def open(self, out: BinaryIO, *, name: str, config: Path) -> PackingWriter:  # noqa: ARG002 - no key files here
        """See `EncryptionBase.open`. The name of the file inside can be read without the password."""
        return self.container(out).only(name)

    def container(self, out: BinaryIO, *, small: int = SMALL) -> ZipContainer:
        """Begin an encrypted zip file for several files; see `Zip.container`.

        Raises:
            RenderError: the password is missing or cannot be used.
        """
        import pyzipper

        password = secrets.password(self.connection)
        refuse_fatal(self._unusable(password))

        def make(valve: Any) -> Any:
            archive = pyzipper.AESZipFile(
                valve,
                "w",
                compression=pyzipper.ZIP_DEFLATED,
                compresslevel=self.level,
                encryption=pyzipper.WZ_AES,
            )
            archive.setpassword(password.encode("ascii"))
            archive.setencryption(pyzipper.WZ_AES, nbits=256)
            return archive

        return ZipContainer(out, make, info=pyzipper.zipfile_aes.AESZipInfo, small=small)

    def key_problems(
        self,
        *,
        config: Path,  # noqa: ARG002 - no key files here
        now: datetime,  # noqa: ARG002 - passwords do not expire
        ahead: timedelta,  # noqa: ARG002
        connections: bool = True,
    ) -> Sequence[KeyProblem]:
        """See `EncryptionBase.key_problems`."""
        if not connections:
            return []
        try:
            return self._unusable(secrets.password(self.connection))
        except RenderError as error:
            return [KeyProblem(key="encrypt", what=error.what, fatal=True)]

    def _unusable(self, password: str) -> list[KeyProblem]:
        if password.isascii() and password.isprintable():
            return []
        # The format does not say how other characters become bytes, and the programs disagree.
        what = "the password has characters outside printable ASCII, which zip programs read differently"
        return [KeyProblem(key=f"connection '{self.connection}'", what=what, fatal=True)]

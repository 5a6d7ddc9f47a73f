"""Encrypt as a zip file with a password: AES-256 as WinZip and 7-Zip read it.

The old encryption of zip files (ZipCrypto) can be broken in minutes and is not offered.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

from pydantic import Field

from leadferry.packing.base import PackingWriter, PasswordBase
from leadferry.packing.container import SMALL, ZipContainer


class ZipAes(PasswordBase):
    """A .zip file that opens only with the password of an Airflow connection; it compresses as well."""

    compresses: ClassVar[bool] = True

    type: Literal["zip_aes"] = "zip_aes"
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

        password = self.password()

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

    def unusable(self, password: str) -> str | None:
        """See `PasswordBase.unusable`."""
        if password.isascii() and password.isprintable():
            return None
        # The format does not say how other characters become bytes, and the programs disagree.
        return "the password has characters outside printable ASCII, which zip programs read differently"

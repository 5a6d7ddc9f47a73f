"""Encrypt with age: small public keys, no settings, no expiry."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import Field

from leadferry.packing.base import (
    EncryptionBase,
    KeyProblem,
    PackingWriter,
    PulledPacker,
    Valve,
    refuse_fatal,
)

Recipient = Annotated[str, Field(pattern=r"^(age1[0-9a-z]+|ssh-(ed25519|rsa) [A-Za-z0-9+/=]+( .*)?)$")]
"""A public key; the pattern keeps a private one (`AGE-SECRET-KEY-1…`) from being accepted by mistake."""

_SHOWN = 16
"""Characters of a public key that are enough to find it in the batch file."""


class Age(EncryptionBase):
    """An .age file that each of the recipients can open with a private key."""

    type: Literal["age"] = "age"
    recipients: list[Recipient] = Field(
        min_length=1,
        description="Public keys: age1…, or ssh-ed25519 and ssh-rsa keys; each alone can decrypt.",
    )
    armor: bool = Field(default=False, description="Write text (PEM) instead of bytes, a third larger.")

    @property
    def ending(self) -> str:
        """See `PackingBase.ending`."""
        return "age"

    @property
    def media_type(self) -> str:
        """See `PackingBase.media_type`; as registered with IANA."""
        return "application/vnd.age"

    def open(self, out: BinaryIO, *, name: str, config: Path) -> PackingWriter:  # noqa: ARG002 - no name, no key files
        """See `EncryptionBase.open`."""
        import pyrage

        keys, problems = self._keys()
        refuse_fatal(problems)
        valve = Valve(out)
        packer = PulledPacker(
            lambda stream: pyrage.encrypt_io(stream, valve, keys, self.armor), what="Encrypting with age"
        )
        return PackingWriter(packer, valve, give_up=packer.give_up)

    def key_problems(
        self,
        *,
        config: Path,  # noqa: ARG002 - the keys stand in the batch file
        now: datetime,  # noqa: ARG002 - they do not expire
        ahead: timedelta,  # noqa: ARG002
        connections: bool = True,  # noqa: ARG002
    ) -> Sequence[KeyProblem]:
        """See `EncryptionBase.key_problems`."""
        return self._keys()[1]

    def _keys(self) -> tuple[list[Any], list[KeyProblem]]:
        import pyrage

        keys, problems = [], []
        for written in self.recipients:
            kind = pyrage.ssh if written.startswith("ssh-") else pyrage.x25519
            try:
                keys.append(kind.Recipient.from_str(written))
            except pyrage.RecipientError:
                problems.append(
                    KeyProblem(
                        key=f"recipient {written[:_SHOWN]}…", what="it is no valid public key", fatal=True
                    )
                )
        return keys, problems

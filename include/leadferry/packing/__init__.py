"""The ways in which a file may be compressed and encrypted: one file each, one line here each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from leadferry.packing.age import Age
from leadferry.packing.gzip import Gzip
from leadferry.packing.pgp import Pgp
from leadferry.packing.xlsx_password import XlsxPassword
from leadferry.packing.zip import Zip
from leadferry.packing.zip_aes import ZipAes
from leadferry.packing.zstd import Zstd


def _named_by_type(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


Compression = Annotated[
    Annotated[Gzip | Zip | Zstd, Field(discriminator="type")],
    BeforeValidator(_named_by_type, json_schema_input_type=dict[str, Any] | str),
]
"""`compress: gzip` or `compress: {type: gzip, level: 9}`."""

Encryption = Annotated[Age | Pgp | XlsxPassword | ZipAes, Field(discriminator="type")]
"""`encrypt: {type: …}`; each has something that must be named."""

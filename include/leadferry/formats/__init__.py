"""The formats that a file may have: one file each, one line here each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from leadferry.formats.csv import Csv
from leadferry.formats.fixed_width import FixedWidth
from leadferry.formats.json import Json
from leadferry.formats.name_value import NameValue
from leadferry.formats.ndjson import Ndjson
from leadferry.formats.parquet import Parquet
from leadferry.formats.xlsx import Xlsx
from leadferry.formats.xml import Xml

Format = Annotated[
    Csv | FixedWidth | Json | NameValue | Ndjson | Parquet | Xlsx | Xml, Field(discriminator="type")
]

"""The formats that a file may have: one file each, one line here each."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from leadferry.formats.csv import Csv
from leadferry.formats.json import Json
from leadferry.formats.ndjson import Ndjson
from leadferry.formats.xlsx import Xlsx
from leadferry.formats.xml import Xml

Format = Annotated[Csv | Json | Ndjson | Xlsx | Xml, Field(discriminator="type")]

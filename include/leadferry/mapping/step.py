"""What every transform is: options from the batch file, and one function from a column to a column."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

if TYPE_CHECKING:
    import polars as pl


_NO_TRUTH = "must be a text; YAML reads yes, no, on, off, true and false as truth values: write it in quotes"


def _as_text(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(_NO_TRUTH)  # noqa: TRY004 - pydantic reports a ValueError with its place, not a TypeError
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value
    raise ValueError("must be a text; write it in quotes, so that it stays as it is written")


Text = Annotated[str, BeforeValidator(_as_text, json_schema_input_type=str | int)]
"""A text of the batch file; a whole number without quotes is taken as its digits."""


def _with_text_keys(table: Any) -> Any:
    return {_as_text(key): value for key, value in table.items()} if isinstance(table, Mapping) else table


TextTable = Annotated[
    dict[str, Text], BeforeValidator(_with_text_keys, json_schema_input_type=dict[str, str | int])
]
"""From text to text, each written as `Text` may be."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a transform may know besides the column that it changes."""

    timezone: str
    """IANA name of the zone in which instants are written: the recipient's."""
    locale: str
    """Language and country of names of months and days, such as `en_US`."""
    sources: pl.DataFrame
    """The columns that the mapping reads, as text, one row per lead; no lead ids."""


class Options(BaseModel, abc.ABC):
    """The options of one transform as they stand in the batch file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @abc.abstractmethod
    def apply(self, values: pl.Series, context: Context) -> pl.Series:
        """Return the column after this transform.

        Null stays null. A value that this transform cannot handle becomes null, which the field's policy
        then finds; an empty text means that there is no value and is no failure.

        Args:
            values: text, or null where the lead has no value; never the empty text.
            context: zone, locale and the other columns of the same leads.

        Raises:
            RenderError: the transform as a whole cannot run; never because of one value.
        """

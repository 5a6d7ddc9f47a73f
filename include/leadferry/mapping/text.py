"""Transforms that change texts: case, white space, parts, look-ups."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from leadferry.errors import RenderError
from leadferry.mapping.step import Context, Options, Text, TextTable

if TYPE_CHECKING:
    import polars as pl

Missing = Literal["error", "keep", "blank"]
"""What becomes of a value that a table or pattern does not know: it fails, stays as it is, or is left out."""


def title(values: pl.Series) -> pl.Series:
    """Capitalise each word; `O'Neil` keeps its capitals, `3rd` and `Levi's` their small letters."""
    titled = values.str.to_titlecase()
    if not titled.str.contains(r"\d(?:St|Nd|Rd|Th)\b|['\u2019]S\b").any():
        return titled
    for ending in ("st", "nd", "rd", "th"):
        titled = titled.str.replace_all(rf"(\d){ending.title()}\b", f"${{1}}{ending}")
    return titled.str.replace_all(r"(\w['\u2019])S\b", "${1}s")


WORDS: dict[str, Callable[[pl.Series], pl.Series]] = {
    "trim": lambda values: values.str.strip_chars(),
    "collapse": lambda values: values.str.replace_all(r"\s+", " "),
    "upper": lambda values: values.str.to_uppercase(),
    "lower": lambda values: values.str.to_lowercase(),
    "title": title,
    "digits": lambda values: values.str.replace_all(r"[^0-9]+", ""),
}
"""The transforms without options, written as a bare word."""


def _resolve_unknown(found: pl.Series, values: pl.Series, *, missing: Missing) -> pl.Series:
    import polars as pl

    if missing == "keep":
        return found.zip_with(found.is_not_null(), values)
    if missing == "blank":
        blank = pl.select(pl.when(values.is_not_null()).then(pl.lit(""))).to_series()
        return found.zip_with(found.is_not_null(), blank)
    return found


# Constructs that Python's engine knows and the linear-time engine of polars does not.
_NOT_SUPPORTED = re.compile(r"\(\?(?:=|!|<=|<!|P=|>|\()|(?<!\\)(?:\\\\)*\\[1-9]")
_REFERENCE = re.compile(r"\$(?:(\d+)|\{(\w+)\}|(\$)|)")


class Regex(Options):
    """Replaces what a pattern matches, or takes a part out."""

    pattern: str = Field(
        min_length=1, description="Regular expression; no look-around and no back-references."
    )
    replace: Text | None = Field(
        default=None, description="What every match becomes; $1 or ${name} is a group, $$ a dollar sign."
    )
    extract: int | str | None = Field(
        default=None,
        description="Number or name of the group to take out of the first match; 0 is the whole match.",
    )
    missing: Missing = Field(
        default="error", description="With extract: what becomes of a value without a match."
    )

    @field_validator("pattern")
    @classmethod
    def _pattern_can_be_used(cls, pattern: str) -> str:
        if _NOT_SUPPORTED.search(pattern):
            raise ValueError("look-around, back-references and conditions are not supported in patterns")
        try:
            re.compile(pattern)
        except (re.error, OverflowError) as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _replaces_or_extracts(self) -> Self:
        if (self.replace is None) == (self.extract is None):
            raise ValueError("say exactly one of replace and extract")
        if self.extract is None and "missing" in self.model_fields_set and self.missing != "error":
            raise ValueError("missing goes with extract; replace leaves a value without a match as it is")
        known = re.compile(self.pattern)
        for group in self._groups():
            if group not in known.groupindex and not (str(group).isdecimal() and int(group) <= known.groups):
                raise ValueError(f"the pattern has no group {group!r}; a dollar sign itself is written $$")
        return self

    def _groups(self) -> list[str]:
        if self.replace is None:
            return [str(self.extract)]
        return [number or name for number, name, dollar in _REFERENCE.findall(self.replace) if not dollar]

    def apply(self, values: pl.Series, context: Context) -> pl.Series:  # noqa: ARG002 - the same for all transforms
        """Replace or extract; see the fields."""
        import polars as pl

        try:
            if self.replace is not None:
                return values.str.replace_all(self.pattern, self._replacement())
            return _resolve_unknown(self._extracted(values), values, missing=self.missing)
        except pl.exceptions.ComputeError:
            raise RenderError(
                f"regex: the pattern {self.pattern!r} cannot be used",
                hint="Write it in the syntax of Rust's regex crate: no look-around, no back-references",
            ) from None

    def _replacement(self) -> str:
        # "$1st" would be read as the group "1st"; braces end the reference where the digits end.
        return _REFERENCE.sub(lambda match: f"${{{match[1]}}}" if match[1] else match[0], self.replace or "")

    def _extracted(self, values: pl.Series) -> pl.Series:
        group = self.extract
        if isinstance(group, str) and not group.isdecimal():
            group = re.compile(self.pattern).groupindex[group]
        return values.str.extract(self.pattern, int(group or 0))


class Replace(Options):
    """Replaces parts of a value by others, literally, all in one pass from left to right."""

    parts: TextTable = Field(min_length=1)

    @field_validator("parts")
    @classmethod
    def _no_part_is_empty(cls, parts: dict[str, str]) -> dict[str, str]:
        if "" in parts:
            raise ValueError("the text to replace must not be empty")
        return parts

    def apply(self, values: pl.Series, context: Context) -> pl.Series:  # noqa: ARG002 - the same for all transforms
        """Replace every part; where two parts start at the same place the longer one wins."""
        # The engine prefers the earlier pattern among those that start at the same place.
        longest_first = sorted(self.parts, key=lambda part: (-len(part), part))
        return values.str.replace_many(
            longest_first, [self.parts[part] for part in longest_first], leftmost=True
        )


class Lookup(Options):
    """Replaces whole values by what a table says."""

    table: TextTable = Field(
        min_length=1, description="From the lead's value, exactly as it is, to the value delivered."
    )
    missing: Missing = Field(default="error", description="What becomes of a value that is not in the table.")

    def apply(self, values: pl.Series, context: Context) -> pl.Series:  # noqa: ARG002 - the same for all transforms
        """Look every value up; see `missing` for those that are not there."""
        import polars as pl

        found = values.replace_strict(self.table, default=None, return_dtype=pl.String)
        return _resolve_unknown(found, values, missing=self.missing)


class Cut(Options):
    """Keeps the first characters."""

    length: int = Field(ge=1, description="How many characters to keep at most.")

    def apply(self, values: pl.Series, context: Context) -> pl.Series:  # noqa: ARG002 - the same for all transforms
        """Cut every value that is longer."""
        return values.str.slice(0, self.length)


class Pad(Options):
    """Fills values up to a width; longer values stay as they are."""

    width: int = Field(ge=1, le=1000, description="Characters that every value has at least.")
    with_: Text = Field(
        default=" ", alias="with", min_length=1, max_length=1, description="The character to fill with."
    )
    side: Literal["left", "right"] = Field(default="left", description="Where the filling goes.")

    def apply(self, values: pl.Series, context: Context) -> pl.Series:  # noqa: ARG002 - the same for all transforms
        """Fill every value that is shorter."""
        if self.side == "left":
            return values.str.pad_start(self.width, self.with_)
        return values.str.pad_end(self.width, self.with_)


TRUE = ("true", "t", "yes", "y", "on", "1")
FALSE = ("false", "f", "no", "n", "off", "0")


def _name_of_truth(key: Any) -> Any:
    return str(key).lower() if isinstance(key, bool) else key


class Boolean(Options):
    """Writes truth values in the recipient's words; understands true/false, yes/no, y/n, t/f, on/off and 1/0."""

    true: Text = Field(default="true", description="What is written for a true value.")
    false: Text = Field(default="false", description="What is written for a false value.")

    @model_validator(mode="before")
    @classmethod
    def _keys_are_no_truth_values(cls, options: Any) -> Any:
        # YAML reads the key `true:` as the truth value itself.
        return (
            {_name_of_truth(key): value for key, value in options.items()}
            if isinstance(options, dict)
            else options
        )

    def apply(self, values: pl.Series, context: Context) -> pl.Series:  # noqa: ARG002 - the same for all transforms
        """Translate every truth value, whatever its case; anything else fails."""
        import polars as pl

        words = dict.fromkeys(TRUE, self.true) | dict.fromkeys(FALSE, self.false)
        plain = values.str.strip_chars().str.to_lowercase()
        return plain.replace_strict(words, default=None, return_dtype=pl.String)

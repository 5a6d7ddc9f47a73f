"""Which values of a lead go into which column of the file, and how.

`OutputField` is what a batch file says of one column. `Mapping` is the whole list, made ready for a stream of
blocks: each block is one frame of claimed leads, and everything in it is done a column at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from leadferry.errors import RenderError
from leadferry.mapping.python_function import VALUE
from leadferry.mapping.step import Context, Text
from leadferry.mapping.transforms import Transform

if TYPE_CHECKING:
    import polars as pl

LEAD_ID = "__lead_id"
"""The column of a claimed block that holds the leads' ids; no lead field can be reached under this name."""


def _is_no_reserved_name(name: str) -> str:
    if name == LEAD_ID:
        raise ValueError(f"{LEAD_ID!r} is a reserved name; the lead's id is called id")
    return name


SourceName = Annotated[str, Field(min_length=1), AfterValidator(_is_no_reserved_name)]
"""The name of a lead field; see `leadferry.mapping.sources`."""


class OutputField(BaseModel):
    """One column of the file."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        serialize_by_alias=True,
        validate_by_alias=True,
        validate_by_name=True,
        json_schema_extra={"oneOf": [{"required": [origin]} for origin in ("from", "value", "concat")]},
    )

    to: str = Field(min_length=1, description="The column's label, in any script.")
    from_: SourceName | None = Field(
        default=None, alias="from", description="Name of the lead field that is delivered."
    )
    value: Text | None = Field(default=None, description="The same text for every lead.")
    concat: list[SourceName] | None = Field(
        default=None,
        min_length=1,
        description="Names of lead fields that are put together; those without a value are left out.",
    )
    separator: Text = Field(default=" ", description="Stands between the values put together by concat.")
    transform: list[Transform] = Field(
        default=[], description="Steps that the value goes through, in this order."
    )
    default: Text | None = Field(
        default=None, description="Delivered where there is no value, as it is written here."
    )
    on_error: Literal["fail", "blank", "withhold"] = Field(
        default="fail",
        description="When a step cannot handle a lead's value: fail the delivery, leave the value out, or withhold the lead.",
    )

    @model_validator(mode="after")
    def _has_one_origin(self) -> Self:
        if sum(origin is not None for origin in (self.from_, self.value, self.concat)) != 1:
            raise ValueError(
                "say exactly one of from (a lead field), value (a fixed text) and concat (several lead fields)"
            )
        if self.concat is None and "separator" in self.model_fields_set and self.separator != " ":
            raise ValueError("separator goes with concat")
        return self

    @property
    def sources(self) -> list[str]:
        """Names of the lead fields that it reads, each once."""
        own = [self.from_] if self.from_ else list(self.concat or [])
        return list(dict.fromkeys(own + [name for step in self.transform for name in step.reads]))


@dataclass(frozen=True)
class Mapped:
    """One block of leads as it goes into the file."""

    frame: pl.DataFrame
    """The output columns in their order; no rows for withheld leads; null is "no value"."""
    lead_ids: pl.Series
    """The ids of the leads in `frame`, row by row, named `LEAD_ID`."""
    withheld: dict[int, str]
    """Lead id → why it stays out: `field Phone: phone`."""
    blanked: dict[str, int]
    """Column label → how many values were left out because a step could not handle them."""


@dataclass(frozen=True, kw_only=True)
class _Failures:
    """The leads of one block whose value one step could not handle."""

    field: OutputField
    step: str
    mask: pl.Series


@contextmanager
def _told_of(field: OutputField) -> Iterator[None]:
    """Say in errors which field they are about."""
    try:
        yield
    except RenderError as error:
        raise RenderError(f"field {field.to!r}: {error.what}", hint=error.next_step) from None


class Mapping:
    """The columns of a file, ready to be made from blocks of claimed leads.

    Args:
        fields: one per column, with different labels.
        timezone: IANA name of the recipient's zone.
        locale: the recipient's language and country, such as `en_US`.

    Raises:
        RenderError: a Python function of the mapping cannot be imported.
    """

    def __init__(self, fields: Sequence[OutputField], *, timezone: str, locale: str) -> None:
        self._fields = tuple(fields)
        self._timezone = timezone
        self._locale = locale
        self.columns: list[str] = [field.to for field in self._fields]
        self.sources: list[str] = list(
            dict.fromkeys(name for field in self._fields for name in field.sources)
        )
        self._load_functions()

    def _load_functions(self) -> None:
        """Import what the fields name, so that a mistake is found before the first lead is touched."""
        for field in self._fields:
            for step in field.transform:
                if step.python is None:
                    continue
                with _told_of(field):
                    step.python.load()
                    if VALUE in self.sources:
                        raise RenderError(
                            f"python: a function gets the field's value as {VALUE!r}, which is also a lead field",
                            hint=f"Write the lead field as fields.{VALUE} in the batch file",
                        )

    @property
    def may_withhold(self) -> bool:
        """Whether any lead can be withheld, so that the number of rows is known only after mapping."""
        return any(field.on_error == "withhold" and field.transform for field in self._fields)

    def apply(self, frame: pl.DataFrame) -> Mapped:
        """Map one block.

        Args:
            frame: the column `LEAD_ID` and one text column per name in `sources`; may have no rows.

        Raises:
            RenderError: a step could not handle a value of a field whose policy is `fail`, of a lead that is
                not withheld anyway. Names the field, the step, the count and some lead ids.
        """
        import polars as pl

        sources = _without_blanks(frame.select(self.sources))
        context = Context(timezone=self._timezone, locale=self._locale, sources=sources)
        failures: list[_Failures] = []
        columns = [
            self._column(field, context, rows=frame.height, failures=failures) for field in self._fields
        ]
        withheld = _withheld(failures, frame.get_column(LEAD_ID))
        kept = ~frame.get_column(LEAD_ID).is_in(list(withheld)) if withheld else None
        _raise_for_failures(failures, frame.get_column(LEAD_ID), kept=kept)
        mapped, lead_ids = pl.DataFrame(columns), frame.get_column(LEAD_ID)
        return Mapped(
            frame=mapped if kept is None else mapped.filter(kept),
            lead_ids=lead_ids if kept is None else lead_ids.filter(kept),
            withheld=withheld,
            blanked=_blanked(failures, kept=kept),
        )

    def _column(
        self, field: OutputField, context: Context, *, rows: int, failures: list[_Failures]
    ) -> pl.Series:
        values = _origin(field, context, rows=rows)
        for step in field.transform:
            before = values
            values = _without_empty(
                _run(step, field=field, values=before, context=context, failures=failures)
            )
        if field.default is not None:
            values = _with_default(values, field.default)
        return values.alias(field.to)


def _without_blanks(sources: pl.DataFrame) -> pl.DataFrame:
    """Make missing, empty and white-space-only values one thing: null."""
    import polars as pl

    column = pl.all().cast(pl.String)
    return sources.select(pl.when(column.str.contains(r"\S")).then(column))


def _without_empty(values: pl.Series) -> pl.Series:
    import polars as pl

    if values.dtype != pl.String or not (values == "").any():
        return values
    return pl.select(pl.when(values != "").then(values)).to_series()


def _origin(field: OutputField, context: Context, *, rows: int) -> pl.Series:
    import polars as pl

    if field.from_ is not None:
        return context.sources.get_column(field.from_)
    if field.concat is not None:
        parts = pl.concat_str(field.concat, separator=field.separator, ignore_nulls=True)
        return _without_empty(context.sources.select(parts).to_series())
    return pl.Series([field.value or None], dtype=pl.String).new_from_index(0, rows)


def _run(
    step: Transform, *, field: OutputField, values: pl.Series, context: Context, failures: list[_Failures]
) -> pl.Series:
    """Run one step, and note the leads whose value it could not handle."""
    import polars as pl

    if step.python is None and values.dtype != pl.String:
        values = values.cast(pl.String)
    with _told_of(field):
        after = step.apply(values, context)
    if step.python is None and after.null_count() != values.null_count():
        failures.append(_Failures(field=field, step=step.name, mask=after.is_null() & values.is_not_null()))
    return after


def _with_default(values: pl.Series, default: str) -> pl.Series:
    import polars as pl

    # A default is text, so the whole column is, in every block: also in one where no value is missing.
    text = values if values.dtype == pl.String else values.cast(pl.String)
    return pl.select(pl.lit(text).fill_null(pl.lit(default))).to_series()


def _withheld(failures: list[_Failures], lead_ids: pl.Series) -> dict[int, str]:
    withheld: dict[int, str] = {}
    for failure in failures:
        if failure.field.on_error == "withhold":
            reason = f"field {failure.field.to}: {failure.step}"
            withheld |= {lead: withheld.get(lead, reason) for lead in lead_ids.filter(failure.mask)}
    return withheld


def _blanked(failures: list[_Failures], *, kept: pl.Series | None) -> dict[str, int]:
    blanked: dict[str, int] = {}
    for failure in failures:
        count = int((failure.mask if kept is None else failure.mask & kept).sum())
        if failure.field.on_error == "blank" and count:
            blanked[failure.field.to] = blanked.get(failure.field.to, 0) + count
    return blanked


_IDS_TOLD = 5


def _raise_for_failures(failures: list[_Failures], lead_ids: pl.Series, *, kept: pl.Series | None) -> None:
    for failure in failures:
        ids = lead_ids.filter(failure.mask if kept is None else failure.mask & kept)
        if failure.field.on_error == "fail" and len(ids):
            told = ", ".join(str(lead) for lead in ids.head(_IDS_TOLD))
            raise RenderError(
                f"field {failure.field.to!r}: transform {failure.step} cannot handle the value of {len(ids)}"
                f" of {len(lead_ids)} leads in this block (lead ids {told}{', …' if len(ids) > _IDS_TOLD else ''})",
                hint="Correct these leads, or let the field say on_error: blank or on_error: withhold",
            )

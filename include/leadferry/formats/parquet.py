"""Parquet: columns with types, for data platforms.

The frames pass through the streaming engine of polars, which collects rows into row groups of one size and forgets
each group once it is written: memory does not grow, and the bytes do not depend on how the leads were cut into frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any, BinaryIO, ClassVar, Literal, cast

from pydantic import Field

from leadferry.formats.base import FileContext, FormatBase, Tally, prepared

if TYPE_CHECKING:
    import polars as pl


class Parquet(FormatBase):
    """Text as strings; numbers, dates and truth values with the types that the fields' transforms gave them."""

    extension: ClassVar[str] = "parquet"
    media_type: ClassVar[str] = "application/vnd.apache.parquet"

    type: Literal["parquet"] = "parquet"
    compression: Literal["snappy", "zstd", "gzip", "lz4", "brotli", "uncompressed"] = Field(
        default="snappy", description="Of the data pages; every reader knows snappy, zstd is smaller."
    )
    row_group: int = Field(
        default=50_000, ge=1000, le=1_000_000, description="Leads per row group; so many are held in memory."
    )

    def write(self, frames: Iterable[pl.DataFrame], out: BinaryIO, context: FileContext) -> None:
        """Write the frames; see `FormatBase.write`."""
        import polars as pl
        from polars.io.plugins import register_io_source

        stream = prepared(frames, context, _OneType())
        first = next(stream)

        def source(*_: Any) -> Iterator[pl.DataFrame]:
            yield first
            yield from stream

        guarded = _Guarded(out)
        leads = register_io_source(source, schema=first.schema)
        try:
            leads.sink_parquet(
                cast("IO[bytes]", guarded),
                compression=self.compression,
                row_group_size=self.row_group,
                maintain_order=True,
                engine="streaming",
            )
        except pl.exceptions.PolarsError:
            if guarded.error is not None:
                raise guarded.error from None
            raise


class _Guarded:
    """Keeps what went wrong on writing: polars would tell of it only as a broken file."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.error: Exception | None = None

    def write(self, data: bytes) -> int:
        try:
            self._out.write(data)
        except Exception as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        """Do nothing: whoever opened the file closes it."""


class _OneType:
    """Gives every frame the types of the first one; a column of a Parquet file has one type."""

    def __init__(self) -> None:
        self._schema: pl.Schema | None = None

    def __call__(self, frame: pl.DataFrame, tally: Tally) -> pl.DataFrame:
        if self._schema is None:
            self._schema = frame.schema
        if frame.schema == self._schema:
            return frame
        fitting = frame.cast(self._schema, strict=False)
        for name, dtype in self._schema.items():
            lost = fitting[name].null_count() - frame[name].null_count()
            if lost:
                hint = "Let the transforms of this field always give the same type"
                tally.refused(
                    name, lost, f"are not of the type {dtype}, which the first leads have", hint=hint
                )
        return fitting

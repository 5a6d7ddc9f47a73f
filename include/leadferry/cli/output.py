"""How the commands answer: a table for people, `--json` for programs, the same rows in both."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_ENDLESS = 100_000
"""Columns of a terminal in which everything fits."""
_READABLE = 24
"""Columns that a folded sentence needs to be read."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def aside() -> AbstractContextManager[Any]:
    """Keep standard output, where the answer goes, free of what libraries print meanwhile: Airflow logs there."""
    return redirect_stdout(sys.stderr)


def show(  # noqa: PLR0913 - one for each thing that differs between listings
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
    title: str,
    columns: Sequence[str],
    brief: Sequence[str] | None = None,
    prose: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> None:
    """Print rows as a table, or as a JSON list of objects with the same keys.

    A table has no column in which nothing stands. Where the terminal is too narrow for it, it does without some columns,
    and says so; if that does not help, each row is told line by line.

    Args:
        rows: mappings that have all `columns`.
        as_json: print JSON.
        title: stands above the table.
        columns: in this order.
        brief: the columns that a terminal has room for, where these are not all.
        prose: the columns with sentences or lists, which may be folded between words.
        spare: the columns that a narrow terminal does without, in the order in which they go.
    """
    if as_json:
        typer.echo(
            json.dumps([{name: row[name] for name in columns} for row in rows], default=_plain, indent=2)
        )
        return
    if not rows:
        typer.echo(f"{title}: none")
        return
    names = list(brief or columns)
    texts = {name: ["" if row[name] is None else _told(row[name]) for row in rows] for name in names}
    cells = {name: column for name, column in texts.items() if any(column)}
    console = Console()
    for gone in range(len(spare) + 1):
        table = _fitting(console, title, _without(cells, spare[:gone]), prose=prose)
        if table is not None:
            console.print(table)
            _say_what_is_left_out([one for one in spare[:gone] if one in cells])
            return
    # Folded cells cannot be read: one line per value instead, as psql does in its expanded display.
    console.print(title)
    for number, values in enumerate(zip(*cells.values(), strict=True), start=1):
        console.rule(str(number), align="left")
        console.print(_record(list(cells), values))


def _without(cells: Mapping[str, Sequence[str]], names: Sequence[str]) -> dict[str, Sequence[str]]:
    return {name: column for name, column in cells.items() if name not in names}


def _say_what_is_left_out(names: Sequence[str]) -> None:
    if names:
        told = ", ".join(map(_heading, names))
        typer.echo(f"Left out for want of room: {told}; a wider terminal and --json have all.", err=True)


def tell(values: Mapping[str, Any], *, title: str) -> None:
    """Print one thing for people, a line for each of its values; empty ones are left out."""
    console = Console()
    console.print(title, markup=False, highlight=False)
    texts = ["" if value is None else _told(value) for value in values.values()]
    console.print(_record(list(values), texts))


def say_who_is_not_counted(batches: Iterable[str]) -> None:
    """Say, beside the answer, of which batches the store cannot tell yet what waits for them."""
    if named := ", ".join(batches):
        told = f"Not counted yet, they are new or have other flows now: {named}"
        typer.echo(
            f"{told}. The next look of leadferry_maintenance does it, `leadferry queue BATCH` does it now.",
            err=True,
        )


def print_json(value: Any) -> None:
    """Print for programs what is no list of rows."""
    typer.echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def _fitting(
    console: Console, title: str, cells: Mapping[str, Sequence[str]], *, prose: Sequence[str]
) -> Table | None:
    """Return a table that fits into the terminal, with sentences folded if it must be; None where there is none."""
    table = _table(title, cells)
    wide = console.options.update(max_width=_ENDLESS)
    excess = console.measure(table, options=wide).maximum - console.width
    if excess <= 0:
        return table
    spared = sum(_spared(cells[one]) for one in prose if one in cells)
    return _table(title, cells, prose=prose) if excess <= spared else None


def _table(title: str, cells: Mapping[str, Sequence[str]], *, prose: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left")
    for name in cells:
        table.add_column(_heading(name), no_wrap=name not in prose)
    for row in zip(*cells.values(), strict=True):
        table.add_row(*map(escape, row))
    return table


def _spared(cells: Sequence[str]) -> int:
    """Return how much narrower a column may become before its words are cut or its lines too short to be read."""
    longest = max(map(len, cells))
    word = max((len(word) for cell in cells for word in cell.split()), default=0)
    return longest - max(word, min(longest, _READABLE))


def _record(names: Sequence[str], values: Sequence[str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")  # a path may be longer than a line, and its end is its file's name
    for name, value in zip(names, values, strict=True):
        if value:
            table.add_row(_heading(name), escape(value))
    return table


def _heading(name: str) -> str:
    return name.replace("_", " ")


def _plain(value: Any) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)


def _told(value: Any) -> str:
    """Write a value for people: `2026-11-22 09:00:03 UTC`."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return f"{value:%Y-%m-%d %H:%M:%S %Z}"
    return _plain(value)

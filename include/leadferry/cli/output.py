"""How the commands answer: a table for people, `--json` for programs, the same rows in both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

_ENDLESS = 100_000
"""Columns of a terminal in which everything fits."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def show(
    rows: Sequence[Mapping[str, Any]],
    *,
    as_json: bool,
    title: str,
    columns: Sequence[str],
    brief: Sequence[str] | None = None,
) -> None:
    """Print rows as a table, or as a JSON list of objects with the same keys.

    Where the terminal is too narrow for the table, each row is told line by line.

    Args:
        rows: mappings that have all `columns`.
        as_json: print JSON.
        title: stands above the table.
        columns: in this order.
        brief: the columns that a terminal has room for, where these are not all.
    """
    if as_json:
        typer.echo(
            json.dumps([{name: row[name] for name in columns} for row in rows], default=_plain, indent=2)
        )
        return
    names = list(brief or columns)
    texts = [["" if row[name] is None else _plain(row[name]) for name in names] for row in rows]
    table = _table(title, names, texts)
    console = Console()
    wide = console.options.update(max_width=_ENDLESS)
    if texts and console.measure(table, options=wide).maximum > console.width:
        # Folded cells cannot be read: one line per value instead, as psql does in its expanded display.
        console.print(title)
        for number, values in enumerate(texts, start=1):
            console.rule(str(number), align="left")
            console.print(_record(names, values))
        return
    console.print(table)


def tell(values: Mapping[str, Any], *, title: str) -> None:
    """Print one thing for people, a line for each of its values; empty ones are left out."""
    console = Console()
    console.print(title, markup=False, highlight=False)
    texts = ["" if value is None else _plain(value) for value in values.values()]
    console.print(_record(list(values), texts))


def print_json(value: Any) -> None:
    """Print for programs what is no list of rows."""
    typer.echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in names:
        table.add_column(_heading(name), no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def _record(names: Sequence[str], values: Sequence[str]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in zip(names, values, strict=True):
        if value:
            table.add_row(_heading(name), escape(value))
    return table


def _heading(name: str) -> str:
    return name.replace("_", " ")


def _plain(value: Any) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)

"""How the commands answer: a table for people, `--json` for programs, the same rows in both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

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
    table = Table(title=title, title_justify="left")
    for name in brief or columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*("" if row[name] is None else _plain(row[name]) for name in brief or columns))
    Console().print(table)


def _plain(value: Any) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)

"""Commands about what Airflow must have: the pools that deliver tasks wait in."""

from __future__ import annotations

import json

import typer

app = typer.Typer()


@app.command()
def pools() -> None:
    """Print the pools of all batches, as JSON for `airflow pools import`."""
    from leadferry.dag_factory import pools as pools_of_batches

    about = {"description": "Sessions at one destination at once", "include_deferred": False}
    typer.echo(
        json.dumps({name: {"slots": slots, **about} for name, slots in pools_of_batches().items()}, indent=2)
    )

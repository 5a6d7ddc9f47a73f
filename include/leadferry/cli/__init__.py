"""The command `leadferry`: one module per subject, registered here.

Exit codes: 0 all well, 1 the thing asked about is not well, 2 wrong usage.
"""

from __future__ import annotations

import os
import sys

import typer

from leadferry.cli import (
    airflow,
    batches,
    config,
    doctor,
    history,
    leads,
    operate,
    queue,
    redeliver,
    schedule,
    store,
    watch,
)
from leadferry.errors import LeadferryError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Scheduled lead delivery on Apache Airflow."
)
app.add_typer(config.app)
app.add_typer(schedule.app)
app.add_typer(store.app)
app.add_typer(operate.app)
app.add_typer(doctor.app)
app.add_typer(queue.app)
app.add_typer(history.app)
app.add_typer(redeliver.app)
app.add_typer(airflow.app)
app.add_typer(watch.app)
app.add_typer(batches.app, name="batches")
app.add_typer(leads.app, name="leads")


def main() -> None:
    """Run the command line; a known error is one readable sentence, not a traceback."""
    _prepare_airflow()
    try:
        app()
    except LeadferryError as error:
        typer.echo(f"{error.code}: {error}", err=True)
        sys.exit(1)


def _prepare_airflow() -> None:
    """Let Airflow look for connections in its own database too, as its servers do, and log only what is wrong.

    Without this the task SDK, which every connection is asked of, knows environment variables and secrets backends only.
    """
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")

"""Commands about the files under `config/`; none of them needs the lead store or Airflow."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leadferry.cli.output import AsJson

if TYPE_CHECKING:
    from leadferry.batch.check import Report
    from leadferry.batch.problems import Problem
    from leadferry.batch.schema import Kind

app = typer.Typer()


@app.command()
def check(
    batch: Annotated[str | None, typer.Argument(help="Id of one batch; all of them when left out.")] = None,
    *,
    strict: Annotated[bool, typer.Option("--strict", help="Hints count as problems.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the config files; print each problem with file and line. Exit 1 when there is one."""
    from leadferry.batch.check import check as check_config
    from leadferry.project import config_folder

    report = check_config(config_folder(), only=batch)
    failed = bool(report.problems or (strict and report.hints))
    if as_json:
        typer.echo(json.dumps(_as_data(report, ok=not failed), indent=2))
    else:
        _print(report)
    raise typer.Exit(code=1 if failed else 0)


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="Which file: batch, recipient or defaults.")] = "batch",
) -> None:
    """Print the JSON Schema of a batch file (or a recipient's, or defaults.yaml) for editors."""
    from leadferry.batch.schema import KINDS, file_schema

    if kind not in KINDS:
        raise typer.BadParameter(f"{kind!r} is none of {', '.join(KINDS)}")
    known: Kind = KINDS[KINDS.index(kind)]
    typer.echo(json.dumps(file_schema(known), indent=2, ensure_ascii=False))


def _print(report: Report) -> None:
    for problem in report.problems:
        typer.echo(str(problem))
    for hint in report.hints:
        typer.echo(f"hint: {hint}")
    fine = len(report.batches)
    counts = f"{len(report.checked)} checked, {fine} fine, {len(report.broken)} broken"
    problems, hints = len(report.problems), len(report.hints)
    typer.echo(f"{counts}; {problems} problem{'s'[: problems != 1]}, {hints} hint{'s'[: hints != 1]}")


def _as_data(report: Report, *, ok: bool) -> dict[str, Any]:
    return {
        "ok": ok,
        "checked": report.checked,
        "broken": report.broken,
        "problems": [_problem(problem) for problem in report.problems],
        "hints": [_problem(hint) for hint in report.hints],
    }


def _problem(problem: Problem) -> dict[str, Any]:
    from leadferry.batch.problems import dotted
    from leadferry.batch.secret_literals import redact

    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "key": redact(dotted(problem.path)),
        "text": redact(problem.text),
    }

"""Commands about the life of batches: list, new, copy, set, enable, disable, test, delete, export, import."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leadferry.cli.output import AsJson, aside, show

if TYPE_CHECKING:
    from leadferry.batch.model import Batch
    from leadferry.lifecycle.change import Author, Result
    from leadferry.store.database import Database

app = typer.Typer(help="The batches: list them, make, change, switch and remove them.")

Ids = Annotated[list[str] | None, typer.Argument(metavar="[BATCH]...", help="Ids of batches.")]
Tag = Annotated[str | None, typer.Option(help="All batches with this tag.")]
Reason = Annotated[str | None, typer.Option(help="Why; stays in the audit with your name.")]
Every = Annotated[bool, typer.Option("--all", help="All batches.")]


@app.callback(invoke_without_command=True)
def batches(context: typer.Context, *, tag: Tag = None, as_json: AsJson = False) -> None:
    """List the batches of the config files. Exit 1 when one of them is broken."""
    if context.invoked_subcommand is not None:
        return
    from leadferry.batch.load import load_all
    from leadferry.project import config_folder

    found, errors = load_all(config_folder())
    columns = ["id", "name", "recipient", "flows", "schedule", "timezone", "enabled", "tags", "destinations"]
    rows = [_row(one, as_json=as_json) for one in found if tag is None or tag in one.tags]
    brief = ["id", "name", "recipient", "schedule", "enabled"]
    show(
        rows,
        as_json=as_json,
        title="Batches",
        columns=columns,
        brief=brief,
        prose=["name", "schedule"],
        spare=["recipient", "name"],
    )
    for error in errors:
        typer.echo(str(error), err=True)
    raise typer.Exit(code=1 if errors else 0)


def _row(batch: Batch, *, as_json: bool) -> dict[str, Any]:
    return {
        "id": batch.id,
        "name": batch.name,
        "recipient": batch.recipient.id,
        "flows": batch.flows,
        "schedule": str(batch.schedule),
        "timezone": batch.timezone,
        "enabled": batch.enabled if as_json else ("yes" if batch.enabled else "no"),
        "tags": batch.tags,
        "destinations": [destination.where for destination in batch.destinations],
    }


@app.command()
def new(  # noqa: PLR0913 - one option for each question
    batch: Annotated[str, typer.Argument(help="Id of the new batch: the name of its file.")],
    *,
    scenario: Annotated[
        str | None, typer.Option("--from", help="A ready scenario instead of questions.")
    ] = None,
    list_scenarios: Annotated[bool, typer.Option("--scenarios", help="List the scenarios.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Ask nothing; take what is given and the defaults.")
    ] = False,
    name: Annotated[str | None, typer.Option()] = None,
    recipient: Annotated[str | None, typer.Option()] = None,
    flows: Annotated[str | None, typer.Option(help="With commas between them.")] = None,
    at: Annotated[str | None, typer.Option(help="Times, with commas between them.")] = None,
    on: Annotated[str | None, typer.Option(help="days, weekdays, weekends, or mon,thu …")] = None,
    timezone: Annotated[str | None, typer.Option()] = None,
    form: Annotated[str | None, typer.Option("--format", help="csv, xlsx, json …")] = None,
    fields: Annotated[str | None, typer.Option(help="Lead fields, with commas between them.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="sftp, ftp, folder, email, s3.")] = None,
    connection: Annotated[str | None, typer.Option(help="Airflow connection of the destination.")] = None,
    to: Annotated[str | None, typer.Option(help="Directory, folder, bucket or addresses.")] = None,
    min_leads: Annotated[int | None, typer.Option()] = None,
    attempts: Annotated[int | None, typer.Option()] = None,
) -> None:
    """Write a batch file from answers to a few questions, or from a ready scenario; disabled until you enable it."""
    from leadferry.lifecycle import change, scaffold
    from leadferry.project import config_folder

    if list_scenarios:
        rows = [{"scenario": one, "for": what} for one, what in scaffold.scenarios().items()]
        show(rows, as_json=False, title="Scenarios", columns=["scenario", "for"], prose=["for"])
        return
    given = {
        "name": name, "recipient": recipient, "flows": flows, "at": at, "on": on, "timezone": timezone,
        "format": form, "fields": fields, "type": kind, "connection": connection, "to": to,
        "min_leads": min_leads, "attempts": attempts,
    }  # fmt: skip
    if scenario is not None:
        text = _from_scenario(scenario, given)
    else:
        text = scaffold.batch_text(_answers(batch, given, config=config_folder(), ask=not yes))
    file = change.create(config_folder(), batch, text, by=_author())
    typer.echo(
        f"{file}\nNext: leadferry check {batch}; leadferry batches test {batch}; leadferry batches enable {batch}"
    )


def _from_scenario(scenario: str, given: dict[str, Any]) -> str:
    from leadferry.lifecycle import edit, scaffold

    text = scaffold.scenario_text(scenario)
    changes = {key: given[key] for key in ("name", "recipient") if given[key]}
    if given["flows"]:
        changes["flows"] = [one.strip() for one in given["flows"].split(",")]
    return edit.changed(text, changes)


def _answers(batch_id: str, given: dict[str, Any], *, config: Path, ask: bool) -> Any:
    from leadferry.batch.load import recipient_files
    from leadferry.lifecycle.scaffold import GROUPS, QUESTIONS, answers_from

    recipients = [file.stem for file in recipient_files(config)]
    only_one = recipients[0] if len(recipients) == 1 else None
    if not ask:
        if given["recipient"] is None and only_one is None:
            known = (
                f": {', '.join(recipients)}" if recipients else ", the name of a file in config/recipients/"
            )
            raise typer.BadParameter(f"say whose leads these are with --recipient{known}")
        return answers_from({"recipient": only_one, **_without_none(given)}, batch_id=batch_id)
    defaults = answers_from({"recipient": recipients[0] if recipients else "acme"}, batch_id=batch_id)
    questions = {**QUESTIONS, "recipient": f"Recipient: {', '.join(recipients)}"} if recipients else QUESTIONS
    answers: dict[str, Any] = {}
    for group, names in GROUPS.items():
        typer.secho(f"\n{group}", bold=True)
        for one in names:
            default = getattr(defaults, one)
            known = given[one]
            answers[one] = (
                known if known is not None else typer.prompt(f"  {questions[one]}", default=default)
            )
    return answers_from(answers, batch_id=batch_id)


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


@app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="BATCH", help="Id of the batch to copy.")],
    new_id: Annotated[str, typer.Argument(metavar="NEW", help="Id of the copy.")],
    *,
    name: Annotated[str | None, typer.Option(help="Name of the copy.")] = None,
    reason: Reason = None,
) -> None:
    """Copy a batch: a new id, disabled, without history or waiting leads of the original."""
    from leadferry.lifecycle import change
    from leadferry.project import config_folder

    file = change.copy(config_folder(), source, new_id, name=name, by=_author(reason))
    typer.echo(f"{file} (disabled)")


@app.command("set")
def set_keys(  # noqa: PLR0913 - which batches, what, and how it is told
    changes: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE...", help="retry.attempts=3; KEY= removes it.")
    ],
    *,
    batch: Annotated[list[str] | None, typer.Option("--batch", help="A batch's id; repeatable.")] = None,
    tag: Tag = None,
    every: Every = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the change of each file, write nothing.")
    ] = False,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Change keys of several batch files; each is changed only if it loads afterwards. Comments stay."""
    from leadferry.lifecycle import change
    from leadferry.project import config_folder

    config = config_folder()
    ids = change.chosen(config, batch or [], tag=tag, every=every)
    wanted = dict(_assignment(one) for one in changes)
    if dry_run:
        for one in ids:
            typer.echo(change.planned(config, one, wanted), nl=False)
        return
    _tell(change.set_keys(config, ids, wanted, by=_author(reason)), as_json=as_json)


def _assignment(text: str) -> tuple[str, Any]:
    from leadferry.lifecycle.edit import parse_value

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, parse_value(value)


@app.command()
def enable(
    batch: Ids = None,
    *,
    tag: Tag = None,
    every: Every = False,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Switch batches on: they depart by their timetables from their next time on."""
    from leadferry.lifecycle.change import enable as switch

    _switch(switch, batch, tag=tag, every=every, reason=reason, as_json=as_json)


@app.command()
def disable(
    batch: Ids = None,
    *,
    tag: Tag = None,
    every: Every = False,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Switch batches off: nothing departs, leads go on being collected."""
    from leadferry.lifecycle.change import disable as switch

    _switch(switch, batch, tag=tag, every=every, reason=reason, as_json=as_json)


def _switch(  # noqa: PLR0913  (the options of two commands)
    switch: Callable[..., Sequence[Result]],
    batches: Sequence[str] | None,
    *,
    tag: str | None,
    every: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    from leadferry.lifecycle.change import chosen
    from leadferry.project import config_folder

    ids = chosen(config_folder(), batches or [], tag=tag, every=every)
    _tell(switch(config_folder(), ids, by=_author(reason)), as_json=as_json)


@app.command()
def acknowledge(batch: Annotated[str, typer.Argument(help="The batch's id.")]) -> None:
    """Say that the recipient expects a batch's fields as they are now, after they changed."""
    from leadferry.batch.load import load_batch
    from leadferry.connections import lead_store
    from leadferry.delivery import field_changes
    from leadferry.project import config_folder

    found = load_batch(batch, config=config_folder())
    changes = field_changes.acknowledge(lead_store(), found, actor=_author().actor)
    typer.echo(f"Acknowledged: {changes or 'nothing changed since the last delivery'}")


def _tell(results: Sequence[Result], *, as_json: bool) -> None:
    rows = [{"batch": one.batch, "ok": one.ok, "changed": one.changed, "result": one.text} for one in results]
    columns = ["batch", "ok", "changed", "result"]
    show(rows, as_json=as_json, title="Batches", columns=columns, brief=["batch", "result"], prose=["result"])
    raise typer.Exit(code=0 if all(one.ok for one in results) else 1)


@app.command()
def delete(
    batch: Annotated[str, typer.Argument(help="The batch's id.")],
    *,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Also when leads wait, a delivery is open or another batch passes leads on to it."
        ),
    ] = False,
    reason: Reason = None,
) -> None:
    """Remove a batch's file. Refused while leads wait for it or others refer to it; what it delivered stays in the store."""
    from leadferry.lifecycle import change
    from leadferry.project import config_folder

    for one in change.delete(config_folder(), batch, force=force, by=_author(reason)):
        typer.echo(f"overridden: {one}", err=True)
    typer.echo(f"Batch {batch} is deleted; its history stays in the lead store.")


@app.command()
def versions(
    batch: Annotated[str, typer.Argument(help="The batch's id.")], *, as_json: AsJson = False
) -> None:
    """List the configurations that ever ran, and what changed from one to the next; also of a deleted batch."""
    from leadferry.connections import lead_store
    from leadferry.lifecycle.versions import versions as versions_of

    found = versions_of(lead_store(), batch)
    rows = [
        {
            "version": one.number,
            "first_used_at": one.first_used_at,
            "deliveries": one.deliveries,
            "sha256": one.sha256,
            "changes": list(one.changes) if as_json else "\n".join(one.changes),
        }
        for one in found
    ]
    columns = ["version", "first_used_at", "deliveries", "sha256", "changes"]
    brief = ["version", "first_used_at", "deliveries", "changes"]
    show(rows, as_json=as_json, title=f"Versions of {batch}", columns=columns, brief=brief)


@app.command("test")
def deliver_test(
    batch: Annotated[str, typer.Argument(help="The batch's id.")],
    *,
    to: Annotated[
        Path | None, typer.Option(help="Deliver into this folder instead of the batch's destinations.")
    ] = None,
) -> None:
    """Deliver two made-up leads now, in files named TEST_…; the queue is not touched. Exit 1 when it fails."""
    from leadferry.archive import Archive
    from leadferry.batch.load import load_batch
    from leadferry.connections import lead_store
    from leadferry.delivery.settle import SUCCESSES, explain
    from leadferry.lifecycle.trial import trial
    from leadferry.project import config_folder

    found = load_batch(batch, config=config_folder())
    with aside():
        settlement = trial(
            lead_store(), Archive.from_environment(), found, folder=to, actor=getpass.getuser()
        )
    typer.echo(explain(settlement))
    raise typer.Exit(code=0 if settlement.state in SUCCESSES else 1)


@app.command("export")
def export_config(file: Annotated[Path, typer.Argument(help="The ZIP file to write.")]) -> None:
    """Write all config files into one ZIP file, with checksums."""
    from leadferry.lifecycle import backup
    from leadferry.project import config_folder

    files = backup.export(config_folder(), file)
    _author().record_about("config", "config.export", {"files": files})
    typer.echo(f"{files} files in {file}")


@app.command("import")
def import_config(file: Annotated[Path, typer.Argument(help="A ZIP file that `export` wrote.")]) -> None:
    """Put the files of an export into an empty config folder (`LEADFERRY_CONFIG`); all or nothing."""
    from leadferry.lifecycle import backup
    from leadferry.project import config_folder

    files = backup.restore(file, config_folder())
    _author().record_about("config", "config.import", {"files": files})
    typer.echo(f"{files} files in {config_folder()}")


def _author(reason: str | None = None) -> Author:
    from leadferry.lifecycle.change import Author

    return Author(actor=getpass.getuser(), database=_store(), reason=reason)


def _store() -> Database | None:
    """Return the lead store; None where there is none to be asked for, as on a bare checkout."""
    from leadferry.connections import is_at_home, lead_store
    from leadferry.errors import StoreError

    if not is_at_home():
        return None
    try:
        return lead_store()
    except StoreError as error:
        typer.echo(f"No audit row is written: {error}", err=True)
        return None

"""The page of a batch's DAG in the Airflow UI, as Markdown: for the operator who has never seen the batch file.

The text follows from the configuration alone, so that a DAG that did not change is not stored as a new version.
Airflow drops HTML from such pages; only Markdown reaches the reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import yaml

from leadferry.batch.model import Batch, Contact
from leadferry.batch.problems import bug
from leadferry.batch.selection import Select
from leadferry.batch.windows import Period
from leadferry.destinations import Destination
from leadferry.destinations.base import Retry
from leadferry.mapping.fields import OutputField
from leadferry.mapping.rules import describe_rule
from leadferry.schedule.calendar import told_hours
from leadferry.schedule.clock import spoken
from leadferry.schedule.model import Scheduled
from leadferry.units import told_duration, write_clock

_EMPTY = {
    "skip": "the departure is skipped",
    "header_only": "a file without leads is delivered",
    "notice": "a notice is mailed to `notify.empty`",
    "fail": "the run fails",
}

_SUCCESS = {
    "all": "every destination has everything, itself or by its fallback",
    "any": "at least one destination has everything",
    "primary": "`{primary}` has everything, itself or by its fallback",
}


def describe(batch: Batch) -> str:
    """Return what a person should know about a batch: who gets what, when, where, and what to do when it fails.

    A bug met on the way stands in the page's place: no page is worth a departure, of this batch or of another.
    """
    try:
        return _page(batch)
    except Exception as error:  # noqa: BLE001  # whatever it is
        return f"# {_line(batch.name)}\n\nThis page could not be written: {bug(error)}. Please report this.\n"


def _page(batch: Batch) -> str:
    sections = (
        _head(batch),
        _recipient(batch),
        _when(batch),
        _which(batch),
        _fields(batch),
        _where(batch),
        _when_it_failed(batch),
        _config(batch),
    )
    return "\n\n".join("\n".join(lines).strip() for lines in sections) + "\n"


def _head(batch: Batch) -> Iterator[str]:
    yield f"# {_line(batch.name)}"
    for text in (batch.description, batch.notes):
        if text:
            yield from ("", text.strip())


def _recipient(batch: Batch) -> Iterator[str]:
    recipient = batch.recipient
    yield f"## Recipient: {_line(recipient.name)}"
    if recipient.notes:
        yield from ("", recipient.notes.strip())
    if recipient.contacts:
        yield ""
        yield from _table(("Contact", "Role", "Mail", "Phone"), map(_contact, recipient.contacts))


def _contact(contact: Contact) -> Sequence[str]:
    return contact.name, contact.role or "", contact.email or "", contact.phone or ""


def _when(batch: Batch) -> Iterator[str]:
    yield "## When"
    yield ""
    if not batch.enabled:
        yield (
            "- **Switched off** (`enabled: false`): nothing departs, leads are collected."
            f" Only a test can be triggered. On again: `leadferry batches enable {batch.id}`."
        )
    if batch.schedule == "manual":
        yield "- Departs only when the DAG is triggered by hand."
    else:
        yield f"- Departs {batch.schedule}, {batch.schedule_zone} time."
        yield from _calendar(batch.schedule)
    conditions = batch.conditions
    if conditions.min_leads > 1:
        late = (
            f", unless the oldest has waited {told_duration(conditions.max_wait)}"
            if conditions.max_wait
            else ""
        )
        yield f"- Takes at least {conditions.min_leads} leads{late}; fewer stay in the queue."
    if conditions.max_leads:
        yield f"- More than {conditions.max_leads} leads are taken for a mistake: the run fails, they stay in the queue."
    if conditions.ready:
        yield f"- Waits for {_line(str(conditions.ready))}, for {told_duration(conditions.ready.timeout)} at most."
    yield f"- With nothing to deliver, {_EMPTY[batch.empty]}."
    if batch.deadline and batch.schedule != "manual":
        yield f"- What has not arrived {told_duration(batch.deadline)} after its time is told as an incident."
    yield f"- {_retries(batch.retry)}"
    for one in batch.destinations:
        if one.retry is not None:
            yield f"- For `{one.id}`: {_retries(batch.retry_of(one.id))}"
    if len(batch.destinations) > 1:
        yield f"- Counts as delivered when {_SUCCESS[batch.success].format(primary=batch.primary)}."


def _calendar(schedule: Scheduled) -> Iterator[str]:
    """Say on which days and at which times the recipient is closed, and what becomes of a departure then."""
    calendar = schedule.calendar
    if calendar is None:
        return
    closed = [*calendar.weekend, *(["holidays"] if calendar.closed else [])] or ["no day"]
    general, weekend = schedule.policy_on(weekend=False), schedule.policy_on(weekend=True)
    apart = f", on a weekend {_CLOSED_DAY[weekend]}" if weekend != general and calendar.weekend else ""
    yield f"- Calendar `{calendar.id}`: closed on {spoken(closed)}; what falls on a closed day {_CLOSED_DAY[general]}{apart}."
    halves = spoken(sorted({write_clock(ends) for ends in calendar.half_days.values()}) or [""])
    if calendar.hours is not None:
        half = f", on half days until {halves}" if halves else ""
        yield f"- Business hours {told_hours(calendar.hours)}{half}; at other times nothing is sent, it waits."
    elif halves:
        yield f"- On half days departures go at {halves} at the latest."
    if calendar.blackouts:
        yield f"- Nothing departs {_line(spoken([str(one) for one in calendar.blackouts]))}; it goes when that is over."


_CLOSED_DAY = {
    "skip": "is left out",
    "previous": "goes on the open day before",
    "next": "goes on the open day after",
    "deliver": "goes all the same",
}


def _retries(retry: Retry) -> str:
    if retry.attempts == 1:
        return "A failed delivery is not tried again by itself."
    pauses = f"again after {told_duration(retry.first_delay)}"
    if retry.factor > 1 and retry.max_delay > retry.first_delay:
        pauses += (
            f", each further pause {retry.factor:g} times as long, at most {told_duration(retry.max_delay)}"
        )
    return f"A delivery that fails for a passing reason is tried {retry.attempts} times in all: {pauses}."


def _which(batch: Batch) -> Iterator[str]:
    select = batch.select
    yield "## Which leads"
    yield ""
    yield f"- From {', '.join(f'`{flow}`' for flow in batch.flows)}, {_ORDER[select.order]}."
    if select.received_from:
        yield f"- Received from {select.received_from} on."
    yield from _received(select)
    if select.limit:
        yield f"- At most {select.limit} in one delivery; the rest stay in the queue."
    yield from _asked(batch)
    for rule in select.rules:
        yield f"- Rule `{rule.name}`: {_line(describe_rule(rule))}."
    yield (
        "- A lead that does not meet a rule is withheld, with the rule's name."
        if select.rules
        else "- All of them: there are no rules."
    )
    for cap in select.caps:
        yield f"- {_line(cap.told)}: what is beyond {_OVERFLOW[cap.overflow]}."


def _received(select: Select) -> Iterator[str]:
    """Say which time of arrival makes a lead go with a departure, and which time of day keeps it."""
    window, quiet = select.window, select.quiet_hours
    if window == "since_previous":
        yield "- What came until the departure was due, also when the run is late."
    elif isinstance(window, Period):
        days = f" ({window.days[0]} to {window.days[-1]})" if window.days else ""
        which = "before the departure's" if window.which == "previous" else "of the departure"
        yield f"- What came until the end of the {window.period} {which}{days}, and not after the departure was due."
    if quiet is not None:
        told = f"{write_clock(quiet.from_)} and {write_clock(quiet.to)}"
        yield f"- Not while it is between {told} where the lead is; until then it stays in the queue."


_OVERFLOW = {"hold": "stays in the queue", "drop": "is withheld", "next": "goes to the next batch"}


def _asked(batch: Batch) -> Iterator[str]:
    """Say what is asked of a lead besides the batch's rules."""
    select = batch.select
    for rule in batch.recipient.rules:
        yield f"- The recipient's rule `{rule.name}`: {_line(describe_rule(rule))}."
    if select.consent is not None:
        yield "- With consent; without it, withheld as `no_consent`."
    if select.area is not None:
        yield f"- From {len(select.area.states)} states or {len(select.area.prefixes)} ZIP codes; others are withheld as `area`."
    if select.checks:
        yield f"- {_count(len(select.checks), 'check')} of required and possible values; what fails is withheld."
    if select.dedupe is not None:
        by = ", ".join(f"`{select.dedupe.name(one)}`" for one in select.dedupe.by)
        yield f"- No duplicates by {by}."


_ORDER = {"oldest": "the oldest first", "newest": "the newest first", "random": "in random order"}


def _fields(batch: Batch) -> Iterator[str]:
    yield "## What they get"
    yield ""
    yield from _table(
        ("Column", "From", "Changed by"), ((one.to, _origin(one), _steps(one)) for one in batch.fields)
    )


def _origin(field: OutputField) -> str:
    if field.value is not None:
        return f"always {field.value!r}"
    return " + ".join(field.concat) if field.concat else str(field.from_)


def _steps(field: OutputField) -> str:
    steps = [
        f"{step.name}{_options({} if step.word else step.options.model_dump(mode='json', exclude_defaults=True))}"
        for step in field.transform
    ]
    if field.default is not None:
        steps.append(f"default {field.default!r}")
    return ", ".join(steps)


def _options(options: dict[str, Any]) -> str:
    said = ", ".join(
        f"{key} {value}" for key, value in options.items() if not isinstance(value, (dict, list))
    )
    return f" ({said})" if said else ""


def _where(batch: Batch) -> Iterator[str]:
    yield "## Where"
    yield ""
    if batch.files:
        yield from _table(
            ("File", "Name", "Format"),
            (
                *((one.id, one.name, one.format.type) for one in batch.files),
                *((one.id, one.name, f"zip of {', '.join(one.files)}") for one in batch.bundles),
            ),
        )
        yield ""
    rows = ((_role(one), one.where, _what_it_gets(batch, one)) for one in batch.destinations)
    yield from _table(("Destination", "Where", "Gets"), rows)


def _what_it_gets(batch: Batch, destination: Destination) -> str:
    if destination.takes == "leads":
        return "the leads themselves"
    return ", ".join(file.id for file in batch.files_for(destination.id))


def _role(destination: Destination) -> str:
    if destination.fallback_for is None:
        return destination.id
    return f"{destination.id}, only when {destination.fallback_for} failed"


def _when_it_failed(batch: Batch) -> Iterator[str]:
    tasks = ", ".join(f"`deliver.{one.id}`" for one in batch.destinations)
    told = ", ".join(f"`{address}`" for address in batch.notify.failure)
    heard = f"{told} gets a mail when" if len(batch.notify.failure) == 1 else f"{told} get a mail when"
    heard = heard if told else "Nobody gets a mail (`notify.failure` is empty) when"
    yield f"""\
## If a delivery failed

{heard} a delivery fails.

1. Open the log of the red task ({tasks}; or `extract`, `render`): the last line says what happened and what to do.
2. `leadferry deliveries {batch.id}` shows the state of every delivery:
   - **failed**: nothing arrived. The leads are back in the queue, in their old place, and go with the next departure;
     to send them earlier, trigger this DAG.
   - **partial**: some destinations have it, others do not. Its leads count as delivered. When the cause is removed,
     clear the red `deliver` task together with what comes after it: only what is missing is sent, the same bytes.
   - **held**: nobody can tell whether it arrived, so it is never sent again by itself. `leadferry dispatch list DELIVERY`
     shows the dispatch that is `unknown`, and its id. Ask the recipient, then say
     `leadferry dispatch confirm ID --reason TEXT` or `leadferry dispatch fail ID --reason TEXT`.
   - **claimed**, **rendered**: still under way; a failed task is tried again by itself until its tries are used up.
3. `leadferry doctor {batch.id}` tries the way to every destination, from the host name to a written file, and names
   the stage that fails with its remedy.
4. Pink tasks are no failure: nothing to deliver, a fallback that was not needed, or something is held or suspended;
   the task's log says which. `leadferry suspensions` lists what is held, `leadferry resume {batch.id} --reason TEXT` ends it.
5. What has arrived is never sent twice, whatever you clear or trigger."""


def _config(batch: Batch) -> Iterator[str]:
    text = yaml.dump(
        _written(batch),
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=110,
    )
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", text)), 3)
    yield "## Configuration"
    yield ""
    yield f"What `defaults.yaml`, the recipient's file and `{batch.id}.yaml` come to; keys that none of them names have their defaults."
    yield "`leadferry config show DELIVERY` has everything that a delivery was made with, the days of its calendar too."
    yield f"\n{fence}yaml\n{text.rstrip()}\n{fence}"


def _written(batch: Batch) -> dict[str, Any]:
    """Return what people wrote, put together from all files; a calendar by its name, not with the holidays of years."""
    said: dict[str, Any] = batch.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    if batch.schedule != "manual" and batch.schedule.calendar is not None:
        said["schedule"]["calendar"] = batch.schedule.calendar.id
    return said


class _Dumper(yaml.CSafeDumper):
    """Writes texts of several lines as blocks, and the same list twice as two lists."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{' --- |' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(_line(cell).replace('|', chr(92) + '|') for cell in row)} |"


def _line(text: str) -> str:
    """Keep a text in its line, and what looks like HTML in sight."""
    return " ".join(text.split()).replace("<", "&lt;")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"

"""Examine batches: their keys, and each destination with its connection."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from leadferry.batch.model import Batch
from leadferry.delivery.variables import recipient_zone
from leadferry.destinations.base import DestinationBase
from leadferry.destinations.email import Email
from leadferry.destinations.parcel import OutgoingFile, Parcel
from leadferry.doctor import credentials, wire
from leadferry.doctor import destination as one_destination
from leadferry.doctor.destination import Task
from leadferry.doctor.finding import Examination, Finding, Stage, Verdict
from leadferry.errors import LeadferryError
from leadferry.store.database import Database
from leadferry.templates import variables

if TYPE_CHECKING:
    from dns.resolver import Resolver

AHEAD = timedelta(days=30)
"""How long before a key expires it is told."""

_CONTENT = "Leadferry doctor: a made-up file that holds no lead.\n"


@dataclass(frozen=True, kw_only=True)
class Orders:
    """How an examination is to be done.

    Attributes:
        now: the present, aware.
        config: the folder with the batch files; keys are read from it.
        database: the lead store, which remembers the age of credentials; None where it cannot be reached.
        timeout: seconds that a server may stay silent, at most.
        max_age: how long the same credentials are used before it is told.
        write: whether something is written, renamed and removed at the destinations.
        send_test: whether a made-up file is sent for good.
        resolver: asks for mail servers; the machine's own when left out.
    """

    now: datetime
    config: Path
    database: Database | None
    timeout: float = 15
    max_age: timedelta = credentials.MAX_AGE
    write: bool = True
    send_test: bool = False
    resolver: Resolver | None = None


def examine_batch(batch: Batch, orders: Orders, *, destination: str | None = None) -> Iterator[Examination]:
    """Examine a batch: its keys and passwords, then each destination, or one.

    Raises:
        BatchConfigError: the batch has no such destination.
    """
    chosen = batch.destinations if destination is None else [batch.destination(destination)]
    if destination is None and (keys := _keys(batch, orders)):
        yield Examination(subject=f"batch {batch.id}", where="encryption", batch=batch.id, findings=keys)
    for one in chosen:
        yield _examine_destination(batch, one, orders)


def _keys(batch: Batch, orders: Orders) -> list[Finding]:
    """Look at every key and password with which files are encrypted or signed."""
    encrypted = [file for _, _, file in batch.files_and_bundles if file.packing.encrypt is not None]
    problems = [
        problem
        for file in encrypted
        for problem in file.packing.key_problems(config=orders.config, now=orders.now, ahead=AHEAD)
    ]
    if encrypted and not problems:
        return [Finding(stage=Stage.KEYS, verdict=Verdict.OK, what="keys and passwords are there and valid")]
    hint = "Ask the recipient for a new key, or correct the connection; until then nothing can be encrypted"
    return [
        Finding(
            stage=Stage.KEYS,
            verdict=Verdict.FAILED if problem.fatal else Verdict.WARNING,
            what=str(problem),
            remedy=hint if problem.fatal else "Ask the recipient for a new key in time",
        )
        for problem in dict.fromkeys(problems)
    ]


def _examine_destination(batch: Batch, destination: DestinationBase, orders: Orders) -> Examination:
    found = Examination(
        subject=f"{batch.id} → {destination.id}",
        where=destination.where,
        batch=batch.id,
        destination=destination.id,
    )
    connection, kind = getattr(destination, "connection", None), str(getattr(destination, "type", ""))
    if connection is not None:
        try:
            credentials.read(connection, kind=kind)
        except LeadferryError as error:
            found.findings = _unknown_connection(error)
            return found
    with _task(batch, destination, orders) as task:
        found.findings = one_destination.examine(destination, task)
    if connection is not None and orders.database is not None:
        told = credentials.try_age(
            orders.database, connection, kind=kind, now=orders.now, max_age=orders.max_age
        )
        found.findings.append(told)
    if isinstance(destination, Email):
        found.findings += [_sender(destination), *_mail_servers(destination, orders)]
    return found


def _unknown_connection(error: LeadferryError) -> list[Finding]:
    failed = Finding(stage=Stage.CONNECTION, verdict=Verdict.FAILED, what=error.what, remedy=error.next_step)
    rest = [stage for stage in one_destination.ORDER if stage is not Stage.CONNECTION]
    return [failed, *(Finding(stage=stage, verdict=Verdict.NOT_REACHED) for stage in rest)]


def _sender(mail: Email) -> Finding:
    """Tell the address in From, which recipients have to put on their list of allowed senders."""
    try:
        address = mail.sender or credentials.mail_settings(mail.connection).sender
    except LeadferryError as error:
        return Finding(stage=Stage.SENDER, verdict=Verdict.NOT_REACHED, what=error.what)
    if not address or "@" not in address:
        hint = "Give the destination a `sender`, or the connection a `from_email`"
        return Finding(stage=Stage.SENDER, verdict=Verdict.FAILED, what="no sender", remedy=hint)
    named = f"{mail.sender_name} <{address}>" if mail.sender_name else address
    what = f"From: {named}; the recipient has to allow this address"
    return Finding(stage=Stage.SENDER, verdict=Verdict.OK, what=what)


def _mail_servers(mail: Email, orders: Orders) -> list[Finding]:
    domains = {address.rpartition("@")[2].lower() for address in mail.addressees() if address}
    return wire.mail_servers(domains, resolver=orders.resolver)


# --- what is written


@contextmanager
def _task(batch: Batch, destination: DestinationBase, orders: Orders) -> Iterator[Task]:
    with TemporaryDirectory(prefix="leadferry-") as folder:
        making = _Making(batch, destination, orders.now, Path(folder))
        yield Task(
            probe=making.probe(),
            timeout=orders.timeout,
            now=orders.now,
            write=orders.write,
            send=tuple(making.tests()) if orders.send_test else (),
        )


@dataclass(frozen=True)
class _Making:
    """Makes the parcels for one destination; every one of them has a name of its own."""

    batch: Batch
    destination: DestinationBase
    now: datetime
    folder: Path

    def probe(self) -> Parcel:
        """What is written and removed: a few words, or a lead without values for who takes leads."""
        if self.destination.takes == "leads":
            record = {"lead_id": 0, "fields": {field.to: None for field in self.batch.fields}}
            return self._parcel("leadferry_doctor.ndjson", json.dumps(record) + "\n", rows=1)
        return self._parcel(f"leadferry_doctor_{secrets.token_hex(4)}.txt", _CONTENT)

    def tests(self) -> Sequence[Parcel]:
        """What is sent for good: one parcel for each addressee; none where leads are taken, `test` does that."""
        if self.destination.takes == "leads":
            return []
        name = f"TEST_leadferry_doctor_{secrets.token_hex(4)}.txt"
        return [
            self._parcel(name, _CONTENT, addressee=addressee) for addressee in self.destination.addressees()
        ]

    def _parcel(self, name: str, content: str, *, rows: int = 0, addressee: str | None = None) -> Parcel:
        data = content.encode()
        path = self.folder / name
        path.write_bytes(data)
        file = OutgoingFile(
            name=name,
            path=path,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            rows=rows,
            media_type="text/plain",
        )
        key = f"doctor/{name}/{addressee or ''}"
        return Parcel(
            key=key, attempt=1, files=(file,), addressee=addressee, variables=self._variables(file_name=name)
        )

    def _variables(self, **about_the_file: Any) -> dict[str, Any]:
        recipient = self.batch.recipient
        return variables(
            batch_id=self.batch.id,
            batch_name=f"TEST_{self.batch.name}",
            batch_description=self.batch.description,
            recipient_id=recipient.id,
            recipient_name=recipient.name,
            timezone=recipient_zone(self.batch),
            locale=recipient.locale,
            delivery_id="0",
            delivery_number=0,
            departs_at=self.now,
            window_from=None,
            window_to=self.now,
            lead_count=0,
            **about_the_file,
        )

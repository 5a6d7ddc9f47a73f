"""One destination, examined in the order in which a delivery gets there; the first stage that fails is named."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from leadferry.destinations.base import AllowsPlaintext, DestinationBase, Session
from leadferry.destinations.email import Email
from leadferry.destinations.folder import Folder
from leadferry.destinations.ftp import Ftp
from leadferry.destinations.http import Http
from leadferry.destinations.parcel import Parcel
from leadferry.destinations.sftp import Sftp
from leadferry.destinations.table import Table
from leadferry.destinations.transfer import access_log
from leadferry.doctor import wire
from leadferry.doctor.finding import Finding, Stage, Verdict
from leadferry.doctor.wire import Opening
from leadferry.errors import (
    AccessDeniedError,
    AuthenticationError,
    ConnectionRefusedByHostError,
    DestinationBusyError,
    DnsError,
    HostKeyError,
    LeadferryError,
    MissingExtraError,
    NoSuchPathError,
    RegionError,
    TransferInterruptedError,
)

ORDER = (
    Stage.CONNECTION,
    Stage.DNS,
    Stage.TCP,
    Stage.TLS,
    Stage.LOGIN,
    Stage.PATH,
    Stage.WRITE,
    Stage.RENAME,
    Stage.DELETE,
)
"""The stages of every destination; what a destination does not have is not applicable."""

_BY_ERROR: dict[type, Stage] = {
    MissingExtraError: Stage.CONNECTION,
    DnsError: Stage.DNS,
    ConnectionRefusedByHostError: Stage.TCP,
    HostKeyError: Stage.TLS,
    AuthenticationError: Stage.LOGIN,
    NoSuchPathError: Stage.PATH,
    RegionError: Stage.PATH,
}
"""Errors that say by themselves how far it got; of the others the moment says it."""

_BY_VERB = {"mkdir": Stage.PATH, "put": Stage.WRITE, "rename": Stage.RENAME}
"""What was being done when it failed, by the words of the access log; removing comes last."""

_OBJECT_STORES = {"s3", "gcs", "azure"}

_HUNG_UP = (
    "The server answers and hangs up: its firewall or list of allowed addresses may not know this worker,"
    " or it has too many sessions; ask the recipient, and run this again"
)
_UNREADABLE = "Correct the Airflow connection (host, port, extra), then run this again"


@dataclass(frozen=True, kw_only=True)
class Task:
    """How far an examination goes.

    Attributes:
        probe: a tiny made-up file, or for destinations that take leads a made-up lead without values.
        timeout: seconds that a server may stay silent, at most.
        now: by which certificates end, aware.
        write: whether something is written, renamed and removed.
        send: parcels that are sent for good after that.
    """

    probe: Parcel
    timeout: float
    now: datetime
    write: bool = True
    send: tuple[Parcel, ...] = ()


def examine(destination: DestinationBase, task: Task) -> list[Finding]:
    """Examine a destination; returns a finding for every stage, in their order."""
    timeout = getattr(destination, "timeout", None)
    if timeout is not None and timeout > task.timeout:
        destination = destination.model_copy(update={"timeout": task.timeout})
    one = _Examiner(destination, task)
    one.run()
    return one.findings()


@dataclass
class _Examiner:
    destination: DestinationBase
    task: Task
    found: dict[Stage, Finding] = field(default_factory=dict)
    more: list[Finding] = field(default_factory=list)

    def run(self) -> None:
        if self._address() and self._certificate():
            self._use()

    def findings(self) -> list[Finding]:
        """Return the stages in order; what nobody came to is not reached."""
        stages = [self.found.get(one) or Finding(stage=one, verdict=Verdict.NOT_REACHED) for one in ORDER]
        return [*stages, *self.more]

    # --- telling

    def _ok(self, stage: Stage, what: str = "") -> None:
        self.found.setdefault(stage, Finding(stage=stage, verdict=Verdict.OK, what=what))

    def _none(self, *stages: Stage, what: str = "") -> None:
        for stage in stages:
            self.found.setdefault(stage, Finding(stage=stage, verdict=Verdict.NOT_APPLICABLE, what=what))

    def _take(self, finding: Finding) -> bool:
        self.found[finding.stage] = finding
        return finding.verdict is not Verdict.FAILED

    def _fail(self, stage: Stage, error: LeadferryError, *, hint: str | None = None) -> None:
        """Name the stage that failed; those before it have been passed."""
        for before in ORDER[: ORDER.index(stage)]:
            self._ok(before)
        self.found[stage] = Finding(
            stage=stage, verdict=Verdict.FAILED, what=error.what, remedy=hint or _remedy(error)
        )

    # --- stage by stage

    def _address(self) -> bool:
        """Read the connection, look up the name and reach the port."""
        if isinstance(self.destination, Folder):
            self._none(Stage.CONNECTION, Stage.DNS, Stage.TCP, Stage.TLS, Stage.LOGIN)
            return True
        try:
            endpoint = self.destination.endpoint()
        except LeadferryError as error:
            self._fail(Stage.CONNECTION, error, hint=_remedy(error) or _UNREADABLE)
            return False
        self._ok(Stage.CONNECTION)
        if endpoint is None:
            self._none(Stage.DNS, Stage.TCP)
            return True
        host, port = endpoint
        if self._speaks_http and wire.goes_through_proxy(host):
            self._none(Stage.DNS, Stage.TCP, Stage.TLS, what="through the proxy of this machine's settings")
            return True
        return self._take(wire.resolve(host, port)) and self._take(
            wire.reach(host, port, timeout=self.task.timeout)
        )

    @property
    def _speaks_http(self) -> bool:
        return isinstance(self.destination, Http) or self._kind in _OBJECT_STORES

    @property
    def _kind(self) -> str:
        return str(getattr(self.destination, "type", ""))

    def _certificate(self) -> bool:
        """Look at the certificate, where there is one; tell what is sent in clear."""
        endpoint = None if Stage.TLS in self.found else self.destination.endpoint()
        if endpoint is None or isinstance(self.destination, Sftp):
            return True  # the session checks it
        if isinstance(self.destination, Table):
            return self._take(_in_clear(self.destination)) if self.destination.allow_plaintext else True
        opening = _opening(self.destination)
        if opening is None:
            return self._take(_in_clear(self.destination))
        host, port = endpoint
        found = wire.certificate(host, port, opening=opening, timeout=self.task.timeout, now=self.task.now)
        if isinstance(found, Finding):
            return self._take(found)
        if self._kind in _OBJECT_STORES and not found.retry:
            return self._take(_in_clear(self.destination))  # the store's own session refuses it if it must
        self._fail(Stage.TLS, found)
        return False

    def _use(self) -> None:
        """Log in, and write something and take it away."""
        opened = False
        with _verbs() as failed:
            try:
                with self.destination.open() as session:
                    opened = True
                    self._probe(session)
            except LeadferryError as error:
                self._fail(self._stage_of(error, opened=opened, failed=failed), error)
                if not opened or self.task.write:
                    return
        self._send()

    def _probe(self, session: Session) -> None:
        if not self.task.write and not self._logs_in_with_the_first_request:
            self._passed("")
            self._none(Stage.PATH, Stage.WRITE, what="left out")
        else:
            self._passed(session.probe(self.task.probe))
        self._none(Stage.RENAME, Stage.DELETE, what="left out" if not self.task.write else "")

    @property
    def _logs_in_with_the_first_request(self) -> bool:
        """Whether opening says nothing to the server, and the probe writes nothing."""
        return isinstance(self.destination, Http)

    def _passed(self, proven: str) -> None:
        """Everything went well: say what each stage was about."""
        self._ok(Stage.TLS, "the host key is the expected one" if isinstance(self.destination, Sftp) else "")
        self._ok(Stage.LOGIN, proven if isinstance(self.destination, Http) else "")
        if not self.task.write:
            return
        if isinstance(self.destination, Email | Http):
            self._none(Stage.PATH)
        self._ok(Stage.PATH)
        if isinstance(self.destination, Http):
            self._none(Stage.WRITE, what="no lead is sent; trigger the batch with `test` for that")
        self._ok(Stage.WRITE, proven)
        if isinstance(self.destination, Folder | Sftp | Ftp) and _renames(self.destination):
            self._ok(Stage.RENAME)
        if isinstance(self.destination, Folder | Sftp | Ftp) or self._kind in _OBJECT_STORES:
            self._ok(Stage.DELETE)

    def _stage_of(self, error: LeadferryError, *, opened: bool, failed: list[str]) -> Stage:
        """Find out how far it got: by the error, else by what was being done."""
        known = next((_BY_ERROR[kind] for kind in type(error).__mro__ if kind in _BY_ERROR), None)
        if known is not None and known is not Stage.PATH:
            return known
        if not opened:
            # A server that falls silent or hangs up: at the first stage that is not proven yet.
            return known or (Stage.LOGIN if Stage.TLS in self.found else Stage.TLS)
        doing = [_BY_VERB[verb] for verb in failed if verb in _BY_VERB]
        if doing:
            return Stage.PATH if known is Stage.PATH and doing[-1] is Stage.WRITE else doing[-1]
        if "remove" in failed:
            return Stage.DELETE
        return known or (Stage.LOGIN if isinstance(self.destination, Http) else Stage.WRITE)

    def _send(self) -> None:
        """Send for good what was asked for."""
        for parcel in self.task.send:
            to = f" to {parcel.addressee}" if parcel.addressee else ""
            try:
                with self.destination.open() as session:
                    receipt = session.send(parcel)
            except LeadferryError as error:
                self._add(Stage.SENT, Verdict.FAILED, f"{error.what}{to}", _remedy(error))
            else:
                self._add(Stage.SENT, Verdict.OK, f"{parcel.file.name}{to}: {receipt.location}")

    def _add(self, stage: Stage, verdict: Verdict, what: str, remedy: str = "") -> None:
        self.more.append(Finding(stage=stage, verdict=verdict, what=what, remedy=remedy))


def _remedy(error: LeadferryError) -> str:
    """Return the error's own next step, unless it speaks of tries that come by themselves."""
    if isinstance(error, TransferInterruptedError | DestinationBusyError):
        return _HUNG_UP
    if isinstance(error, AccessDeniedError) and not error.next_step:
        return AccessDeniedError.hint
    return error.next_step or _UNREADABLE


def _renames(destination: Folder | Sftp | Ftp) -> bool:
    return getattr(destination, "publish", "rename") in {"rename", "temp_directory"}


def _opening(destination: DestinationBase) -> Opening | None:
    """Tell how TLS begins; None where nothing is encrypted."""
    match destination:
        case Ftp():
            return {"explicit_tls": Opening.FTP, "implicit_tls": Opening.AT_ONCE, "none": None}[
                destination.security
            ]
        case Email():
            from leadferry.doctor.credentials import mail_settings

            told = mail_settings(destination.connection)
            return Opening.AT_ONCE if told.use_ssl else Opening.SMTP if told.starttls else None
        case Http():
            from leadferry.destinations.http.session import look_up

            return None if look_up(destination)[0].is_plain else Opening.AT_ONCE
        case _:
            return Opening.AT_ONCE


def _in_clear(destination: DestinationBase) -> Finding:
    reason = destination.plaintext_reason if isinstance(destination, AllowsPlaintext) else None
    why = f" ({reason})" if reason else ""
    return Finding(
        stage=Stage.TLS,
        verdict=Verdict.WARNING,
        what=f"unencrypted{why}: whoever is on the way can read the leads and the password",
        remedy="Ask the recipient for an encrypted way",
    )


@contextmanager
def _verbs() -> Iterator[list[str]]:
    """Collect what this thread failed to do at the destination, by the words of the access log, in order."""
    failed: list[str] = []
    mine = threading.get_ident()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told = record.args
            if record.thread == mine and isinstance(told, tuple) and told[2] == "failed":
                failed.append(str(told[0]))

    listener, level, propagates = Listener(), access_log.level, access_log.propagate
    access_log.addHandler(listener)
    access_log.setLevel(logging.INFO)
    # What is tried here is no transfer, and the command's output belongs to the findings.
    access_log.propagate = False
    try:
        yield failed
    finally:
        access_log.removeHandler(listener)
        access_log.setLevel(level)
        access_log.propagate = propagates

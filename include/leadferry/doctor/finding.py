"""What the doctor tells: stages in a fixed order, each with a verdict and, where it is not well, a remedy."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Stage(StrEnum):
    """What is looked at, in the order in which a delivery passes through it."""

    CONFIG = "config"
    """The batch file can be loaded."""
    KEYS = "keys"
    """Files can be encrypted: keys and passwords are there and valid."""
    CONNECTION = "connection"
    """Airflow knows the connection, its fields make sense, and the libraries for it are installed."""
    CREDENTIAL = "credential"
    """How long the connection has held the same credentials."""
    DNS = "dns"
    """The host name is an address."""
    TCP = "tcp"
    """The port is open."""
    TLS = "tls"
    """The server proves who it is: certificate or host key; and how long that holds."""
    LOGIN = "login"
    """The server takes the credentials."""
    PATH = "path"
    """The directory, bucket or table is there."""
    WRITE = "write"
    """Something can be written there; for mail, the server takes sender and recipients."""
    RENAME = "rename"
    """It gets its final name."""
    DELETE = "delete"
    """It can be removed."""
    SENDER = "sender"
    """The address in From, which the recipient has to allow."""
    MX = "mx"
    """The recipients' domains take mail."""
    SENT = "sent"
    """Something was sent for good, because that was asked for."""
    STORE = "store"
    """The lead store answers, and its tables are those of this version."""
    CLOCK = "clock"
    """The clocks of this machine and of the store agree."""
    ZONES = "zones"
    """The store reckons with the same time zones as this machine."""
    ARCHIVE = "archive"
    """Files can be written to the archive and read back."""
    POOLS = "pools"
    """Airflow has the pools that deliver tasks wait in."""
    PLUGIN = "plugin"
    """Airflow has loaded the timetables."""


class Verdict(StrEnum):
    """How a stage was found."""

    OK = "ok"
    WARNING = "warning"
    """Works, and somebody should look at it."""
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"
    """There is no such stage here."""
    NOT_REACHED = "not reached"
    """A stage before it failed."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found at one stage. No secrets, no lead data."""

    stage: Stage
    verdict: Verdict
    what: str = ""
    """What was seen, for a reader."""
    remedy: str = ""
    """What to do next, as a sentence; empty where nothing is to be done."""


@dataclass(kw_only=True)
class Examination:
    """Everything that was found about one thing."""

    subject: str
    """`here`, `batch acme`, or `acme → sftp` for a destination of a batch."""
    where: str = ""
    """Where it is, for a reader."""
    batch: str | None = None
    destination: str | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return all(one.verdict is not Verdict.FAILED for one in self.findings)

    def told(self, stage: Stage) -> Finding | None:
        """Return what was found at a stage."""
        return next((one for one in self.findings if one.stage is stage), None)

"""What a batch file says about mail: whom it goes to, what it says, and what happens when it would be too large."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from leadferry.destinations.base import AllowsPlaintext
from leadferry.templates import MailTemplate
from leadferry.units import Duration, Size


def _one_address(value: str) -> str:
    """Refuse what is not exactly one bare address; `Name <address>` belongs into nobody's envelope."""
    if not re.fullmatch(r"[^\s@<>,;:\"()\[\]\\]+@[^\s@<>,;:\"()\[\]\\]+", value):
        raise ValueError("must be one mail address, such as leads@acme.example")
    return value


Address = Annotated[str, AfterValidator(_one_address)]
"""One mail address without a display name."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Personal(_Model):
    """One recipient with texts or files of their own; what is left out is as for everybody."""

    address: Address
    subject: MailTemplate | None = Field(default=None, min_length=1, description="Their subject.")
    body: MailTemplate | None = Field(default=None, description="Their message as plain text.")
    html: MailTemplate | None = Field(default=None, description="Their message as HTML.")
    files: list[str] | None = Field(default=None, min_length=1, description="Ids of the files they get.")


class MailList(_Model):
    """Everybody on a list."""

    list: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of a file in config/lists/.")


class Role(_Model):
    """Every contact of the recipient that has a role."""

    role: str = Field(min_length=1, description="As written in `contacts` of the recipient's file.")


def _kind(entry: Any) -> str:
    if isinstance(entry, dict):
        return next((key for key in ("list", "role") if key in entry), "personal")
    kinds = {MailList: "list", Role: "role", Personal: "personal"}
    return next((name for kind, name in kinds.items() if isinstance(entry, kind)), "address")


_Group = Annotated[MailList, Tag("list")] | Annotated[Role, Tag("role")]
To = Annotated[
    Annotated[Address, Tag("address")] | Annotated[Personal, Tag("personal")] | _Group, Discriminator(_kind)
]
"""An address, a recipient with texts of their own, or a group of them."""

Copy = Annotated[
    Annotated[Address, Tag("address")] | _Group,
    Discriminator(lambda entry: "address" if _kind(entry) == "personal" else _kind(entry)),
]
"""An address, or a group of them."""


class Chart(_Model):
    """A picture of how many leads have which value of a field."""

    field: str = Field(min_length=1, description="The lead field whose values are counted.")
    title: str = Field(default="", max_length=80, description="Stands above the bars; `Leads by <field>`.")
    top: int = Field(default=10, ge=1, le=30, description="Most values with a bar; the rest is `other`.")


Remedy = Literal["zip", "split", "link", "fail"]


class Texts(NamedTuple):
    """The templates of one message."""

    subject: str
    body: str
    html: str | None

    @classmethod
    def of(cls, subject: str, *, body: str | None, html: str | None) -> Texts:
        """Fill in what the batch file leaves out: without any text, the default as text and as HTML."""
        if body is None and html is None:
            return cls(subject, default("mail.txt.j2"), default("mail.html.j2"))
        return cls(subject, default("mail.txt.j2") if body is None else body, html)


@lru_cache(maxsize=2)
def default(name: str) -> str:
    """Return one of the templates in `include/templates/`."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


class MailSettings(AllowsPlaintext):
    """The keys of a destination of type `email`."""

    sends_files_together: ClassVar[bool] = True
    connection_kind: ClassVar[str] = "smtp"

    type: Literal["email"] = "email"
    connection: str = Field(default="smtp", min_length=1, description="Airflow connection of type smtp.")
    to: list[To] = Field(min_length=1, description="Recipients: addresses, `{list: …}`, `{role: …}`.")
    cc: list[Copy] = Field(
        default=[], description="Get a copy and are seen by everybody; not with `one_per_recipient`."
    )
    bcc: list[Copy] = Field(default=[], description="Get a copy and are seen by nobody.")
    mode: Literal["one_per_recipient", "bcc", "together"] = Field(
        default="one_per_recipient",
        description="Whether recipients see only themselves, nobody, or each other in To.",
    )
    subject: MailTemplate = Field(min_length=1, description="Subject; a template.")
    body: MailTemplate | None = Field(
        default=None,
        description="The message as plain text; a template. When left out, a summary, as text and as HTML.",
    )
    html: MailTemplate | None = Field(
        default=None,
        description="The message as HTML, for mail programs that show it; a template, values are escaped.",
    )
    chart: Chart | None = Field(default=None, description="Show a picture of counts in the HTML.")
    sender: Address | None = Field(
        default=None, description="Address in From; the connection's `from_email` or login when left out."
    )
    sender_name: str | None = Field(
        default=None, pattern=r"^[^\x00-\x1f\x7f]+$", max_length=100, description="Name in front of it."
    )
    reply_to: Address | None = Field(default=None, description="Where answers go, when not to the sender.")
    max_message: Annotated[Size, Field(ge=10_000)] | None = Field(
        default=None,
        description="Most bytes of a whole message as it is sent, such as 10MB; files grow by 1.37 in it.",
    )
    when_too_large: list[Remedy] = Field(
        default=["fail"],
        min_length=1,
        description="What is tried, in this order, when a message would be larger: zip, split, link, fail.",
    )
    link_via: str | None = Field(
        default=None, description="Id of the destination that holds the files that are linked."
    )
    link_via_gets_files: bool = Field(
        default=True,
        description="Whether `link_via` also gets the batch's files as other destinations do, or only what is linked.",
    )
    link_expires: Duration = Field(default=timedelta(days=7), description="How long a link works.")
    timeout: float = Field(default=60, gt=0, le=3600, description="Seconds that the server may stay silent.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for problem in _problems(self):
            raise ValueError(problem)
        return self

    @property
    def can_be_asked(self) -> bool:
        """No: a mail server does not tell later what it took."""
        return False

    def addressees(self) -> list[str | None]:
        """Return everybody who gets the mail: each is sent to, confirmed and tried again on its own."""
        return [*self.shown_to, *_addresses(self.cc), *_addresses(self.bcc)]

    @property
    def shown_to(self) -> list[str]:
        """The addresses in `to`."""
        return _addresses(self.to)

    @property
    def shown_cc(self) -> list[str]:
        """The addresses in `cc`."""
        return _addresses(self.cc)

    @property
    def lead_fields(self) -> list[str]:
        """The field that the chart counts."""
        return [self.chart.field] if self.chart else []

    @property
    def groups(self) -> bool:
        """Whether lists or roles still stand for their members; never so in a batch that was loaded."""
        return any(isinstance(one, MailList | Role) for one in [*self.to, *self.cc, *self.bcc])

    def personal(self, addressee: str | None) -> Personal | None:
        """Return what is special about one recipient."""
        return next((one for one in self.to if isinstance(one, Personal) and one.address == addressee), None)

    def files_for(self, addressee: str | None) -> list[str] | None:
        """Return the ids of the files that one recipient gets; None for all."""
        personal = self.personal(addressee)
        return self.files if personal is None or personal.files is None else personal.files

    def texts(self, addressee: str | None) -> Texts:
        """Return the templates of the message to one recipient; the default ones where the batch has none."""
        own = self.personal(addressee)
        subject = (own and own.subject) or self.subject
        if own is not None and own.body is not None:
            return Texts.of(subject, body=own.body, html=own.html)
        html = own.html if own is not None and own.html is not None else self.html
        return Texts.of(subject, body=self.body, html=html)

    @property
    def where(self) -> str:
        """The connection and the recipients' domains."""
        everybody = [one for one in self.addressees() if one is not None]
        domains = sorted({address.rpartition("@")[2] for address in everybody})
        sender = f" from {self.sender}" if self.sender else ""
        number = "1 recipient" if len(everybody) == 1 else f"{len(everybody)} recipients"
        return f"{self.via}{sender}, {number} at {', '.join(domains)}"


def _addresses(entries: list[Any]) -> list[Any]:
    return [
        one.address if isinstance(one, Personal) else one
        for one in entries
        if not isinstance(one, MailList | Role)
    ]


def _problems(mail: MailSettings) -> Iterator[str]:
    seen = [str(address).lower() for address in mail.addressees()]
    if len(set(seen)) < len(seen):
        yield "an address stands twice in `to`, `cc` and `bcc`; it would get the message twice"
    if mail.cc and mail.mode == "one_per_recipient":
        yield "cc shows recipients to each other; say `mode: together`, or use bcc"
    if mail.mode != "one_per_recipient" and any(isinstance(one, Personal) for one in mail.to):
        yield "texts or files for one recipient need `mode: one_per_recipient`; the others share one message"
    yield from _size_problems(mail)
    yield from _chart_problems(mail)


def _size_problems(mail: MailSettings) -> Iterator[str]:
    remedies = mail.when_too_large
    if len(set(remedies)) < len(remedies) or "fail" in remedies[:-1]:
        yield "when_too_large names each remedy once, and nothing is tried after `fail`"
    if remedies != ["fail"] and mail.max_message is None:
        yield "when_too_large needs max_message: say how large a message may be"
    if ("link" in remedies) != (mail.link_via is not None):
        yield "`link` in when_too_large and `link_via`, the destination that holds the files, go together"


_CHART = re.compile(r"\{\{[^{}]*\bmail\.chart\b")


def _chart_problems(mail: MailSettings) -> Iterator[str]:
    pages = [mail.texts(one).html for one in mail.addressees()]
    shown = [page is not None and len(_CHART.findall(page)) for page in pages]
    if mail.chart is None and any(
        page and "mail.chart" in page for page in (mail.html, *_own_pages(mail)) if page
    ):
        yield "the html shows {{ mail.chart }}, so say with `chart` what it counts"
    if mail.chart is not None and any(count != 1 for count in shown):
        yield "a chart needs an `html` that shows {{ mail.chart }} exactly once, or neither `body` nor `html`"


def _own_pages(mail: MailSettings) -> Iterator[str | None]:
    return (one.html for one in mail.to if isinstance(one, Personal))

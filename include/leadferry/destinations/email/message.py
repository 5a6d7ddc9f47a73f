"""What a mail consists of: headers, the texts as the batch file says, a picture within the HTML, and the files.

Nothing of a lead is said but numbers: the leads are in the attachments.
"""

from __future__ import annotations

import html as html_escapes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address as HeaderAddress
from email.message import EmailMessage
from email.policy import EmailPolicy
from typing import Any, cast

from leadferry.destinations.base import with_texts
from leadferry.destinations.email.settings import MailSettings
from leadferry.destinations.parcel import OutgoingFile, Parcel
from leadferry.errors import RenderError
from leadferry.templates import render

LONGEST_ADDRESS = 254
"""RFC 5321, 4.5.3.1: with it in From, a message is at least as large as with the address that will stand there."""

_SURE = 2048
"""Bytes that an estimate is above the truth: numbers of other lengths, headers that fold elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What only the moment of sending knows."""

    sender: str
    message_id: str
    date: str
    """As a mail's header has it."""


# Not every server on the way takes bytes above 127; seven bits pass everywhere.
_POLICY: EmailPolicy[EmailMessage] = EmailPolicy(linesep="\r\n", cte_type="7bit")


def build(
    mail: MailSettings,
    parcel: Parcel,
    envelope: Envelope,
    *,
    content: Callable[[OutgoingFile], bytes] = lambda file: b"".join(file.blocks()),
) -> EmailMessage:
    """Write the message to the parcel's addressee.

    Args:
        mail: what the batch file says.
        parcel: what is sent, to whom, and what templates may use.
        envelope: from whom, when.
        content: gives a file's bytes.

    Raises:
        RenderError: a template cannot be filled in.
        PermanentDeliveryError: a stored file is damaged.
    """
    texts = mail.texts(parcel.addressee)
    message = EmailMessage(policy=_POLICY)
    _head(message, mail, parcel, envelope)
    # A line break in a value would start a header of its own.
    variables = _with_mail(parcel)
    mark = f" [{parcel.redelivery}]" if parcel.redelivery else ""
    message["Subject"] = " ".join(render(texts.subject, variables).split()) + mark
    message.set_content(render(texts.body, variables))
    picture = next((file for file in parcel.files if file.inline), None)
    if texts.html is not None:
        _add_html(message, _page(texts.html, parcel, picture), picture, content)
    linked = {link.name for link in parcel.links}
    for file in parcel.files:
        if not file.inline and file.name not in linked:
            main, _, sub = file.media_type.partition(";")[0].partition("/")
            message.add_attachment(
                content(file), maintype=main, subtype=sub or "octet-stream", filename=file.name
            )
    return message


def _head(message: EmailMessage, mail: MailSettings, parcel: Parcel, envelope: Envelope) -> None:
    message["From"] = HeaderAddress(mail.sender_name or "", addr_spec=envelope.sender)
    match mail.mode:
        case "one_per_recipient":
            message["To"] = parcel.addressee
        case "together":
            message["To"] = ", ".join(mail.shown_to)
        case "bcc":
            message["To"] = "undisclosed-recipients:;"
    if mail.cc:
        message["Cc"] = ", ".join(mail.shown_cc)
    if mail.reply_to:
        message["Reply-To"] = mail.reply_to
    message["Message-ID"] = envelope.message_id
    message["Date"] = envelope.date
    message["Auto-Submitted"] = "auto-generated"


def _add_html(
    message: EmailMessage,
    page: str,
    picture: OutgoingFile | None,
    content: Callable[[OutgoingFile], bytes],
) -> None:
    message.add_alternative(page, subtype="html")
    if picture is None:
        return
    if page.count(_cid(picture)) != 1:
        raise RenderError("the HTML of the mail does not show its chart exactly once")
    alternatives = cast("list[EmailMessage]", message.get_payload())
    alternatives[-1].add_related(
        content(picture),
        maintype="image",
        subtype="png",
        cid=f"<{_cid(picture)}>",
        disposition="inline",
        filename=picture.name,
    )


def _cid(picture: OutgoingFile) -> str:
    return f"{picture.sha256[:32]}@leadferry"


def _with_mail(parcel: Parcel) -> dict[str, Any]:
    """Return what templates may use; the summary is text, and there is no chart."""
    files = _listed(parcel)
    about = {
        "summary": _as_text(files),
        "files": files,
        "part": parcel.part,
        "parts": parcel.parts,
        "chart": "",
    }
    return {**parcel.variables, "mail": about}


def _page(template: str, parcel: Parcel, picture: OutgoingFile | None) -> str:
    """Fill in the HTML: values are escaped, the summary is a table, the chart is the address of the picture."""
    escaped = with_texts(_with_mail(parcel), html_escapes.escape)
    files = escaped["mail"]["files"]
    escaped["mail"] |= {
        "summary": _as_table(files) if files else "",
        "chart": f"cid:{_cid(picture)}" if picture is not None else "",
    }
    return render(template, escaped)


def _listed(parcel: Parcel) -> list[dict[str, Any]]:
    """Say of every file what a reader wants to know before opening it."""
    links = {link.name: link for link in parcel.links}
    return [
        {
            "name": file.name,
            "rows": file.rows,
            "bytes": file.size,
            "size": human(file.size),
            "sha256": file.sha256,
            "link": links[file.name].url if file.name in links else "",
            "expires": _until(links[file.name].expires) if file.name in links else "",
        }
        for file in parcel.files
        if not file.inline
    ]


def _until(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


_THOUSAND = 1000


def human(size: int) -> str:
    """Write a number of bytes for a reader: `512 bytes`, `1.4 MB`."""
    value, units = float(size), iter(("kB", "MB", "GB", "TB"))
    unit = "bytes"
    while value >= _THOUSAND and (larger := next(units, None)):
        value, unit = value / _THOUSAND, larger
    return f"{size} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def _as_text(files: Sequence[Mapping[str, Any]]) -> str:
    return "\n\n".join("\n".join(_lines(file)) for file in files)


def _lines(file: Mapping[str, Any]) -> list[str]:
    lines = [f"{file['name']}", f"  {_leads(file['rows'])}{file['size']}", f"  SHA-256 {file['sha256']}"]
    if file["link"]:
        lines += [f"  Fetch it until {file['expires']}:", f"  {file['link']}"]
    return lines


def _leads(rows: int) -> str:
    return f"{rows} {'lead' if rows == 1 else 'leads'}, " if rows else ""


_CELL = 'style="padding:4px 12px 4px 0;vertical-align:top"'


def _as_table(files: Sequence[Mapping[str, Any]]) -> str:
    rows = "".join(_row(file) for file in files)
    titles = "".join(f'<th align="left" {_CELL}>{title}</th>' for title in ("File", "Leads", "Size"))
    return f'<table cellspacing="0" style="border-collapse:collapse"><tr>{titles}</tr>{rows}</table>'


def _row(file: Mapping[str, Any]) -> str:
    name = f"<b>{file['name']}</b>"
    if file["link"]:
        name = f'<a href="{file["link"]}">{name}</a><br>works until {file["expires"]}'
    note = f'<br><code style="font-size:11px;color:#616e7c">SHA-256 {file["sha256"]}</code>'
    cells = (name + note, str(file["rows"] or ""), file["size"])
    return "<tr>" + "".join(f"<td {_CELL}>{cell}</td>" for cell in cells) + "</tr>"


def estimate(mail: MailSettings, parcel: Parcel) -> int:
    """Return how many bytes the message will have at most, without reading a file."""
    longest = f"{'x' * 64}@{'x' * (LONGEST_ADDRESS - 65)}"
    envelope = Envelope(sender=longest, message_id=f"<{'x' * 300}>", date="x" * 40)
    empty = build(mail, parcel, envelope, content=lambda _: b"")
    linked = {link.name for link in parcel.links}
    attached = [file for file in parcel.files if file.name not in linked]
    return len(empty.as_bytes()) + _SURE + sum(encoded(file.size) for file in attached)


def encoded(size: int) -> int:
    """Return how many bytes a file has in a mail: 57 of it become a line of 76 and its end."""
    return -(-size // 57) * 78


def payload(room: int) -> int:
    """Return how many bytes a file may have that is to take at most `room` bytes of a mail."""
    return max(0, room) // 78 * 57

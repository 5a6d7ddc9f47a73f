"""Pictures of counts for the text of a mail: bars, drawn once when the files are rendered, stored like them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func

from leadferry.delivery.control import Companion, small_file
from leadferry.destinations.email import Email
from leadferry.mapping.sources import source
from leadferry.states import FileKind
from leadferry.store.database import Database
from leadferry.store.leads import most_frequent
from leadferry.store.ledger import Delivery
from leadferry.store.tables import lead

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

OTHER = "other"
"""What all values together are called that have no bar of their own, missing ones included."""

_FEWEST = 2
"""A value that one lead alone has is the lead's data, not a count."""

_WIDTH, _ROW, _HEAD, _EDGE = 1280, 56, 96, 32
"""Pixels; the picture is shown at half its size, sharp on fine screens."""
_LABELS, _NUMBERS = 360, 120
_LONGEST_LABEL = 24
_TITLE, _TEXT = 36, 28
_INK, _BAR, _REST, _PAPER = "#1f2933", "#2b6cb0", "#9aa5b1", "#ffffff"


class Bar(NamedTuple):
    """How many leads have one value."""

    label: str
    leads: int


def draw(database: Database, delivery: Delivery, mail: Email) -> Companion:
    """Return the picture that a mail destination asks for, as a file of the delivery."""
    if mail.chart is None:
        raise ValueError("this destination asks for no chart")
    title = mail.chart.title or f"Leads by {mail.chart.field}"
    content = picture(title, bars(database, delivery, field=mail.chart.field, top=mail.chart.top))
    return small_file(delivery, FileKind.CHART, mail.id, f"{mail.id}_chart.png", content)


def bars(database: Database, delivery: Delivery, *, field: str, top: int) -> list[Bar]:
    """Count the delivery's leads by a field: the most frequent values, then everything else."""
    value = func.nullif(func.btrim(source(field, lead)), "")
    found = most_frequent(database, delivery.id, value, limit=top, at_least=_FEWEST)
    shown = [Bar(label, leads) for label, leads in found]
    rest = delivery.included - sum(bar.leads for bar in shown)
    return [*shown, Bar(OTHER, rest)] if rest else shown


def picture(title: str, counts: Sequence[Bar]) -> bytes:
    """Draw bars as a PNG; the same counts give the same bytes."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("P", (_WIDTH, _HEAD + _ROW * len(counts) + _EDGE), _PAPER)
    canvas = ImageDraw.Draw(image)
    canvas.font = ImageFont.load_default(_TITLE)
    canvas.text((_EDGE, _EDGE), _plain(title, 60), fill=_INK)
    canvas.font = ImageFont.load_default(_TEXT)
    most = max((bar.leads for bar in counts), default=1)
    for place, bar in enumerate(counts):
        _draw_bar(canvas, bar, top=_HEAD + _ROW * place, share=bar.leads / most)
    out = BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def _draw_bar(canvas: ImageDraw, bar: Bar, *, top: int, share: float) -> None:
    left = _EDGE + _LABELS
    longest = _WIDTH - left - _NUMBERS - _EDGE
    right = left + max(2, round(longest * share))
    canvas.text((_EDGE, top + 8), _plain(bar.label, _LONGEST_LABEL), fill=_INK)
    canvas.rectangle((left, top + 6, right, top + _ROW - 14), fill=_REST if bar.label == OTHER else _BAR)
    canvas.text((right + 12, top + 8), f"{bar.leads}", fill=_INK)


def _plain(text: str, longest: int) -> str:
    """Write a label in letters that the built-in font has."""
    from anyascii import anyascii

    plain = " ".join(anyascii(text).split())
    return plain if len(plain) <= longest else f"{plain[: longest - 3]}..."

"""The pages that people read, and the examples in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sybil import Document
from sybil.parsers.markdown import CodeBlockParser

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Every Markdown page of the project that people read."""
    return [*sorted(PROJECT.glob("*.md")), *sorted((PROJECT / "docs").rglob("*.md"))]


def shown(page: Path) -> str:
    """Name a page as its reader would."""
    return str(page.relative_to(PROJECT))


def text_of(page: str) -> str:
    return (PROJECT / page).read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    """What stands below a heading that begins so, up to the next one of the same or a higher level."""
    found = re.search(
        rf"^(#+) {re.escape(heading)}(.*?)(?=^#{{1,6}} |\Z)", text_of(page), re.DOTALL | re.MULTILINE
    )
    assert found, f"{page} has no heading {heading!r}"
    return found.group(0)


def blocks(language: str, page: Path) -> Iterator[Block]:
    """The fenced blocks of a page in one language, found by Sybil."""
    document = Document.parse(str(page), CodeBlockParser(language=language, evaluator=lambda _: None))
    for example in document.examples():
        yield Block(shown(page), example.line, str(example.parsed))


def all_blocks(language: str) -> list[Block]:
    """The fenced blocks of all pages in one language."""
    return [block for page in pages() for block in blocks(language, page)]


def without_code(text: str) -> str:
    """A page without its fenced blocks and inline code, in which brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE))

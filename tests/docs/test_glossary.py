"""The words of the glossary are the words of the code."""

from __future__ import annotations

import importlib
import re

import pytest

from docs.pages import PROJECT, text_of

_CODE = "\n".join(
    path.read_text("utf-8")
    for suffix in ("py", "sql")
    for path in sorted((PROJECT / "include").rglob(f"*.{suffix}"))
)
_ROWS = re.findall(r"^\| ([a-z ]+) \| .* \| (.*) \|$", text_of("docs/glossary.md"), re.MULTILINE)[1:]


def test_there_are_words():
    assert {"lead", "batch", "lot", "parcel", "dispatch", "receipt"} <= {word for word, _ in _ROWS}


@pytest.mark.parametrize(("word", "home"), _ROWS, ids=[word for word, _ in _ROWS])
def test_a_word_lives_where_the_glossary_says(word, home):
    assert re.search(rf"\b{word}(s|es)?\b", _CODE)
    kind, name = re.fullmatch(r"(?:(table|view) )?`(.+)`", home).groups()
    if kind:
        assert re.search(rf"CREATE {kind} {name} ", _CODE, re.IGNORECASE)
    else:
        assert _exists(name)


def _exists(name):
    """Whether a module, or a name in one, is there."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, inside = name.rpartition(".")
        return hasattr(importlib.import_module(module), inside)
    return True

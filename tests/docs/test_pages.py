"""Links lead somewhere, every page can be reached, and each thing that a batch file may name has its page and test."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import pytest

from docs.pages import PROJECT, pages, section, shown, text_of, without_code
from leadferry.destinations import Destination
from leadferry.formats import Format

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def _links(page: Path) -> list[str]:
    found = _LINK.findall(without_code(page.read_text(encoding="utf-8")))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", pages(), ids=shown)
def test_every_link_leads_somewhere(page):
    dead = []
    for link in _links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            dead.append(link)

    assert dead == []


def test_every_page_can_be_reached_from_the_readme():
    reached, ahead = set(), [PROJECT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        targets = [(page.parent / link.partition("#")[0]).resolve() for link in _links(page)]
        ahead += [target for target in targets if target.suffix == ".md" and target.exists()]

    assert [shown(page) for page in pages() if page not in reached] == []


def _kinds() -> list[tuple[str, type]]:
    """Every destination and format that a batch file may name, with the folder it lies in."""
    unions = {"destinations": Destination, "formats": Format}
    return [
        (folder, one)
        for folder, union in unions.items()
        for one in typing.get_args(typing.get_args(union)[0])
    ]


SHARED_KEYS = {"files", "segments", "max_rows", "max_bytes"}
"""Every destination has them; the page on files tells of them."""
POLICY_KEYS = {"primary", "fallback_for", "retry"}
"""Every destination has them too; the page on destinations that fail tells of them."""


def test_the_page_on_files_names_what_every_destination_has():
    page = section("docs/reference/files.md", "For each destination")
    assert {key for key in SHARED_KEYS if f"| `{key}` |" not in page} == set()


def test_the_page_on_failures_names_what_every_destination_has():
    page = text_of("docs/how-to/when-a-destination-fails.md")

    assert {key for key in POLICY_KEYS if f"`{key}" not in page} == set()


@pytest.mark.parametrize(("folder", "kind"), _kinds(), ids=lambda one: getattr(one, "__name__", one))
class TestADestinationOrFormat:
    def test_has_a_test_file(self, folder, kind):
        module = kind.__module__.split(".")[2]

        assert (PROJECT / "tests" / folder / f"test_{module}.py").exists()

    def test_has_a_page_that_names_every_key(self, folder, kind):
        page = (PROJECT / "docs" / folder / f"{_type(kind)}.md").read_text(encoding="utf-8")
        every = SHARED_KEYS | POLICY_KEYS if folder == "destinations" else set()
        own = {field.alias or name for name, field in kind.model_fields.items()} - {"type", "id"} - every

        assert {key for key in own if f"`{key}`" not in page} == set()

    def test_stands_in_the_map_and_in_the_readme(self, folder, kind):
        assert f"({folder}/{_type(kind)}.md)" in text_of("docs/index.md")
        assert re.search(rf"\b{_type(kind)}\b", section("README.md", "What works today"))


def _type(kind: type) -> str:
    return kind.model_fields["type"].default


def test_every_page_of_a_destination_or_format_is_of_one_that_exists():
    known = {(folder, _type(kind)) for folder, kind in _kinds()}
    found = {
        (page.parent.name, page.stem) for page in pages() if page.parent.name in {"destinations", "formats"}
    }

    assert found == known


def test_the_layers_in_contributing_are_those_that_are_held():
    held = re.search(r"^layers = \[\n(.*?)^\]", text_of("pyproject.toml"), re.DOTALL | re.MULTILINE)
    told = re.search(r"^```\n(local\n.*?)```", text_of("CONTRIBUTING.md"), re.DOTALL | re.MULTILINE)

    assert re.findall(r'"(.+)"', held.group(1)) == told.group(1).split("\n")[:-1]

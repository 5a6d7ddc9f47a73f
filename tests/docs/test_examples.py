"""The YAML and the promises of the pages: every example is a configuration that loads."""

from __future__ import annotations

import re

import pytest
from openpyxl import Workbook
from openpyxl.workbook.defined_name import DefinedName

from docs.pages import PROJECT, Block, all_blocks, blocks, pages, shown, text_of
from leadferry.batch.check import check
from leadferry.batch.load import load_batch
from leadferry.batch.model import Batch
from leadferry.batch.yaml_file import parse_yaml
from leadferry.leads_import.watch import read_imports

_FILE = re.compile(r"# (config/\S+\.yaml)\n")

_BATCH = {
    "name": "name: Acme, home leads",
    "recipient": "recipient: acme",
    "flows": "flows: [home]",
    "schedule": "schedule: manual",
    "fields": "fields: [{to: Email, from: email}]",
    "files": 'files: [{name: "{{ delivery.number }}.txt", format: {type: csv}}]',
    "destinations": "destinations: [{id: share, type: folder, path: out}]",
}
"""A batch into which a fragment of one is put, in the place of the key of the same name."""

_OF_OTHER_PROGRAMS = {"repos": "pre-commit", "services": "Docker Compose"}


def _parsed(block: Block):
    return parse_yaml(block.text, shown=str(block)).data


def _of_a_batch_file() -> list[Block]:
    found = [block for block in all_blocks("yaml") if not _FILE.match(block.text)]
    others = {*_OF_OTHER_PROGRAMS, "every_minutes"}
    return [block for block in found if not others & set(_parsed(block))]


def _write(config, name, text):
    path = config / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    "page", [page for page in pages() if _FILE.search(page.read_text("utf-8"))], ids=shown
)
def test_the_config_files_of_a_page_make_a_config_folder_without_problems(page, tmp_path):
    for block in blocks("yaml", page):
        if named := _FILE.match(block.text):
            _write(tmp_path, named.group(1), block.text)

    report = check(tmp_path / "config")

    assert report.problems == []
    assert report.batches


@pytest.mark.parametrize("block", _of_a_batch_file(), ids=str)
def test_a_fragment_fits_into_a_batch(block, tmp_path, monkeypatch):
    config = tmp_path / "config"
    monkeypatch.setenv("LEADFERRY_CONFIG", str(config))
    _make_template(config / "templates" / "acme.xlsx")
    text = _with_its_surroundings(block)
    given = set(parse_yaml(text, shown=str(block)).data)
    assert given <= set(Batch.model_fields)
    rest = [line for key, line in _BATCH.items() if key not in given]
    for other in blocks("yaml", PROJECT / block.page):
        named = _FILE.match(other.text)
        if named and not named.group(1).startswith("config/batches/"):
            _write(tmp_path, named.group(1), other.text)
    _write(config, "recipients/acme.yaml", "name: Acme\ncontacts: [{name: Robin Vale}]\n")
    _write(config, "batches/acme.yaml", "\n".join([*rest, text]))

    assert load_batch("acme", config=config).id == "acme"


def _make_template(file):
    """A workbook of the recipient's own, with a place named `leads`."""
    workbook = Workbook()
    workbook.defined_names["leads"] = DefinedName("leads", attr_text=f"{workbook.active.title}!$A$2")
    file.parent.mkdir(parents=True)
    workbook.save(file)


def _with_its_surroundings(block: Block) -> str:
    """Put a format into a file, with the fields that it names, and give a file that only shows its name a format."""
    text = block.text.rstrip()
    if text.startswith("format:"):
        chosen = _parsed(block)["format"]
        labels = _fields_named_by(chosen) or ["Email"]
        fields = "".join(f"  - {{to: {label}, from: email}}\n" for label in labels)
        indented = "\n".join(f"    {line}" for line in text.splitlines())
        return f'fields:\n{fields}files:\n  - name: "x.txt"\n{indented}\n'
    if text.startswith(("compress:", "encrypt:")):
        kind = "xlsx" if "xlsx_password" in text else "csv"
        indented = "\n".join(f"    {line}" for line in text.splitlines())
        return f'files:\n  - name: "x.txt"\n    format: {{type: {kind}}}\n{indented}\n'
    if text.startswith("files:") and "format:" not in text:
        return f"{text}\n    format: {{type: csv}}\n"
    return f"{text}\n"


def _fields_named_by(chosen):
    """The labels that settings of a format name."""
    by_field = ("names", "widths", "number_formats", "totals", "choices", "notes")
    found = [label for key in by_field for label in chosen.get(key, {})]
    found += [column["name"] for column in chosen.get("columns", [])] + chosen.get("links", [])
    found += [chosen[key] for key in ("sheet_by",) if key in chosen]
    found += [chosen["chart"]["by"]] if "chart" in chosen else []
    found += [name for one in chosen.get("formulas", {}).values() for name in re.findall(r"\[(.*?)\]", one)]
    # A formula makes a column of its own.
    return [label for label in dict.fromkeys(found) if label not in chosen.get("formulas", {})]


def test_the_watched_folders_of_a_page_are_read(tmp_path):
    (block,) = [block for block in all_blocks("yaml") if "every_minutes" in _parsed(block)]
    _write(tmp_path, "imports.yaml", block.text)

    assert read_imports(tmp_path).folders


def test_the_error_in_the_readme_is_the_one_that_is_given(tmp_path, monkeypatch):
    told = next(line for line in text_of("README.md").splitlines() if "'stfp' is not known" in line)
    for block in blocks("yaml", PROJECT / "README.md"):
        name = _FILE.match(block.text).group(1)
        _write(tmp_path, name, block.text.replace("type: sftp", "type: stfp"))
    monkeypatch.chdir(tmp_path)

    assert [str(problem) for problem in check(tmp_path / "config").problems] == [told]

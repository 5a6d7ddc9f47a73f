"""The page of commands and the commands themselves say the same."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command

from docs.pages import pages, section, shown, text_of
from leadferry.cli import app

PAGE = "docs/reference/cli.md"


def _commands(command=None, path="leadferry"):
    """Every command with its name as it is typed."""
    command = command or get_command(app)
    if not hasattr(command, "commands"):
        return {path: command}
    own = {path: command} if command.invoke_without_command else {}
    return own | {
        name: one
        for word, below in command.commands.items()
        for name, one in _commands(below, f"{path} {word}").items()
    }


COMMANDS = _commands()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_stands_on_the_page_with_its_arguments_and_options_and_no_others(name):
    parameters = COMMANDS[name].params
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    told = section(PAGE, f"`{name}")
    head = told.splitlines()[0].removeprefix(f"### `{name}").removesuffix("`").split()

    assert len(head) == len(arguments)
    assert [one.startswith("[") for one in head] == [not one.required for one in arguments]
    assert set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", told.split("\n", 1)[1])) - _flags_of_others(told) == {
        flag for one in parameters if one.param_type_name == "option" for flag in one.opts
    }


def _flags_of_others(told):
    """Flags in sentences: what is behind another command's name."""
    return set(re.findall(r"airflow [^`]*?(--?[a-z-]+)", told))


def test_the_page_has_no_command_that_does_not_exist():
    told = re.findall(r"^### `(leadferry(?: [a-z]+)+)", text_of(PAGE), re.MULTILINE)

    assert set(told) == set(COMMANDS)


_ABOUT_THE_FUTURE = {"CHANGELOG.md", "out-of-scope.md", "coverage.md"}


@pytest.mark.parametrize("page", [page for page in pages() if page.name not in _ABOUT_THE_FUTURE], ids=shown)
def test_every_command_that_a_page_mentions_exists(page):
    told = re.findall(
        r"(?:`|^\s*(?:\$ )?|&& )leadferry ([a-z][a-z -]*)", page.read_text("utf-8"), re.MULTILINE
    )

    unknown = {words for words in told if not any(_begins(f"leadferry {words}", name) for name in COMMANDS)}
    assert unknown == set()


def _begins(typed, name):
    typed, name = typed.split(), name.split()
    return typed[: len(name)] == name or typed == name[: len(typed)]

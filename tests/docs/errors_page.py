"""Writes docs/reference/errors.md from `leadferry.errors`: `python tests/docs/errors_page.py`."""

import inspect
from pathlib import Path

from leadferry import errors

PAGE = Path(__file__).parents[2] / "docs/reference/errors.md"

INTRODUCTION = """\
# Errors

<!-- Written by tests/docs/errors_page.py from include/leadferry/errors.py; a test holds the two together. -->

Every error that Leadferry raises on purpose answers two questions: who acts now, and does trying again help.
The code is what the ledger, logs and metrics file it under; it never changes.
A message says what happened, where (connection, host and port, directory or key), and what to do next.
It never quotes a lead, a payload, a secret, or what a server said in words.

"Tried again" means by Airflow, as often and as late as `retry` in the batch file says.
An error that is not tried again fails the task at once, because only a person can change the outcome.

"""


def classes(kind=errors.LeadferryError):
    """Yield the tree, parents before their children, in the order of the source."""
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from classes(child)


def page():
    """Return the whole page."""
    rows = [
        f"| `{kind.code}` | {kind.__name__} | {'yes' if kind.retry else 'no'} | {_first_line(kind)} | {_hint(kind)} |"
        for kind in classes()
    ]
    table = [
        "| code | class | tried again | what happened | what to do |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]
    return f"{INTRODUCTION}{_tree()}\n" + "\n".join(table) + "\n"


def _tree():
    drawn = inspect.cleandoc(errors.__doc__).split("```")[1].strip("\n")
    return f"```\n{drawn}\n```\n"


def _first_line(kind):
    return inspect.cleandoc(kind.__doc__).splitlines()[0]


def _hint(kind):
    return kind.hint.replace("|", "\\|") or "See the message"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

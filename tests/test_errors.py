"""Every error says what to do next: by its class, or where it is raised."""

import ast
from pathlib import Path

import pytest

from leadferry import errors
from leadferry.errors import LeadferryError

PACKAGE = Path(errors.__file__).parent
KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, LeadferryError)
}
FILES = sorted(PACKAGE.rglob("*.py"))


def without_next_step(source: str) -> list[tuple[int, str]]:
    """Line and class of each error that is made without a hint of its own, though its class has none."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        (call.lineno, call.func.id)
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id in KINDS
        and not KINDS[call.func.id].hint
        and not any(given.arg in {"hint", None} for given in call.keywords)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_error_says_what_to_do_next(path):
    assert without_next_step(path.read_text("utf-8")) == []


def test_an_error_without_a_next_step_is_found():
    assert without_next_step("raise BatchConfigError('x')") == [(1, "BatchConfigError")]
    assert without_next_step("raise BatchConfigError('x', hint='y')") == []

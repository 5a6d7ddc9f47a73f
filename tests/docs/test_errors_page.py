"""The page of errors says what the program does."""

import importlib.util
from pathlib import Path

import pytest

from leadferry import errors

_SPEC = importlib.util.spec_from_file_location("errors_page", Path(__file__).with_name("errors_page.py"))
errors_page = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(errors_page)


@pytest.mark.req("R200")
def test_the_page_is_fresh():
    assert errors_page.PAGE.read_text("utf-8") == errors_page.page(), "run: python tests/docs/errors_page.py"


def test_every_class_stands_in_the_tree_at_the_top_of_the_module():
    for kind in errors_page.classes():
        assert kind.__name__ in errors.__doc__


def test_codes_differ():
    codes = [kind.code for kind in errors_page.classes()]
    own = [code for kind, code in zip(errors_page.classes(), codes, strict=True) if "code" in vars(kind)]
    assert len(set(own)) == len(own)

import pytest

from leadferry.mapping.masked import masked, masked_text

LEADS = [
    {"email": "jim@example.com", "name": "Jim Butt", "state": "LA", "age": 41, "ok": True, "tags": ["a"]},
    {"email": "no address", "note": "", "zip": None, "initial": "J"},
]


def test_nothing_can_be_read_that_tells_who_it_is():
    assert masked(LEADS) == [
        {
            "email": "j***@example.com",
            "name": "J*******",
            "state": "L*",
            "age": "4*",
            "ok": "t***",
            "tags": "[****",
        },
        {"email": "n*********", "note": None, "zip": None, "initial": "*"},
    ]


@pytest.mark.parametrize("leads", [[], [{}], [{"a": None}]])
def test_leads_without_values_are_masked_too(leads):
    assert masked(leads) == leads


def test_a_single_value_is_masked_likewise():
    assert masked_text("form-7-000123") == "f************"
    assert masked_text(None) is None

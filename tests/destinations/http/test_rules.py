"""What an answer means: rules, places, lists of answers, values that are hidden."""

import json
from decimal import Decimal

import pytest

from leadferry.destinations.http.bodies import Record
from leadferry.destinations.http.rules import Body, Items, Place, When, price_of
from leadferry.destinations.http.veil import Veil

JSON = json.dumps(
    {"result": "Invalid ZIP", "ok": True, "code": 12, "none": None, "list": [{"a b": "x"}], "price": 12.5}
)
XML = '<reply code="7"><status>Lead is <b>valid</b></status><id>42</id><id>43</id></reply>'


@pytest.mark.req("F23", "R164")
@pytest.mark.parametrize(
    ("when", "status", "body", "fits"),
    [
        ({"status": [200, 201]}, 201, "", True),
        ({"status": [200, 201]}, 202, "", False),
        ({"status": ["2xx"]}, 204, "", True),
        ({"status": ["4xx", 500]}, 200, "", False),
        ({"word": "valid"}, 200, "this lead is invalid", False),
        ({"word": "valid"}, 200, "this lead is VALID.", True),
        ({"word": "valid"}, 200, "valid_until", False),
        ({"contains": "VALID"}, 200, "invalid", True),
        ({"equals": "OK"}, 200, " OK\n", True),
        ({"equals": "OK"}, 200, "OK then", False),
        ({"equals": "OK"}, 200, "ok", False),
        ({"matches": "^ERR-4\\d+"}, 200, "ERR-41: duplicate", True),
        ({"matches": "^ERR-4\\d+"}, 200, "no ERR-41", False),
        ({"json": "$.result", "word": "valid"}, 200, JSON, False),
        ({"json": "$.result", "word": "zip"}, 200, JSON, True),
        ({"json": "$.ok", "equals": True}, 200, JSON, True),
        ({"json": "$.ok", "equals": "true"}, 200, JSON, True),
        ({"json": "$.code", "equals": 12}, 200, JSON, True),
        ({"json": "$.code", "equals": 1}, 200, JSON, False),
        ({"json": "$.list[0]['a b']", "equals": "x"}, 200, JSON, True),
        ({"json": "$.list[-1]['a b']", "equals": "x"}, 200, JSON, True),
        ({"json": "$.list[7].a", "exists": False}, 200, JSON, True),
        ({"json": "$.none", "exists": True}, 200, JSON, False),
        ({"json": "$.code.more", "exists": True}, 200, JSON, False),
        ({"json": "$.ok", "equals": True}, 200, "no JSON", False),
        ({"json": "$.ok", "exists": False}, 200, "no JSON", True),
        ({"status": [200], "json": "$.ok", "equals": True}, 500, JSON, False),
        ({"xpath": "//status", "word": "valid"}, 200, XML, True),
        ({"xpath": "string(/reply/@code)", "equals": 7}, 200, XML, True),
        ({"xpath": "//id", "equals": 43}, 200, XML, True),
        ({"xpath": "//id", "exists": True}, 200, "no XML", False),
        ({"xpath": "count(//id)", "equals": 2}, 200, XML, True),
        ({"exists": False}, 200, "  ", True),
    ],
)
def test_a_rule_fits_or_not(when, status, body, fits):
    assert When.model_validate(when).fits(status, Body(body)) is fits


def test_xml_from_a_buyer_cannot_read_our_files(tmp_path):
    (tmp_path / "secret").write_text("secret")
    attack = f'<!DOCTYPE r [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]><r><a>&x;</a></r>'
    assert "secret" not in "".join(Body(attack).at_xpath("//a"))


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ({"json": "$.price"}, "12.5"),
        ({"json": "$.gone"}, None),
        ({"matches": '"code": (\\d+)'}, "12"),
        ({"matches": "Inv\\w+"}, "Invalid"),
        ({"matches": "nothing"}, None),
        ({"xpath": "//id"}, None),
    ],
)
def test_what_is_kept_of_an_answer(place, found):
    assert Place.model_validate(place).text(Body(JSON)) == found


def test_what_is_kept_is_short():
    assert len(Place(json="$.m").text(Body(json.dumps({"m": "x" * 9999})))) == 200


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("12.50", "12.50"),
        ("$1,250.00", "1250.00"),
        ("USD 3", "3"),
        ("-1.5", "-1.5"),
        ("free", None),
        (None, None),
    ],
)
def test_prices_are_numbers(text, price):
    assert price_of(text) == (None if price is None else Decimal(price))


def parts(body, ids, **keys):
    return {one: part.json for one, part in Items(at="$.r", **keys).of(Body(json.dumps(body)), ids).items()}


def test_answers_in_a_list_are_told_apart_by_order_or_by_the_echoed_id():
    assert parts({"r": [{"a": 1}, {"a": 2}]}, (7, 8)) == {7: {"a": 1}, 8: {"a": 2}}
    answers = [{"id": "8", "a": 2}, {"id": 7, "a": 1}, {"id": 99}, {"id": None}, "?"]
    assert parts({"r": answers}, (7, 8), lead="$.id") == {8: answers[0], 7: answers[1]}


@pytest.mark.parametrize("body", [{"r": [{"a": 1}]}, {"r": []}, {"r": "all fine"}, {}, [], 7])
def test_a_list_that_is_too_short_or_no_list_tells_of_no_lead(body):
    assert parts(body, (7, 8)) == {}


@pytest.mark.parametrize(
    ("value", "text", "hidden"),
    [
        ("Ann@Example.com", "ann@example.com is known", "[F] is known"),
        ("O'Hara", "lead O&#x27;Hara", "lead [F]"),
        ("Zoë", json.dumps({"name": "Zoë"}), '{"name": "[F]"}'),
        ("+1 (212) 555-0100", "212.555.0100 is on a list", "[F] is on a list"),
        ("12125550100", "phone +1 212 555 0100!", "phone [F]!"),
        ("CA", "CALIFORNIA", "CALIFORNIA"),
        (None, "nothing", "nothing"),
        (True, "true story", "true story"),
        (98109, "ZIP 98109", "ZIP [F]"),
        ("x.y", "xzy and x.y", "xzy and [F]"),
        ("nobody", "write to other@example.org", "write to [e-mail]"),
    ],
)
def test_a_leads_values_are_replaced_by_their_label(value, text, hidden):
    assert Veil([Record(1, {"F": value})]).hide(text) == hidden


def test_an_excerpt_is_bounded_and_can_be_stored():
    assert len(Veil([]).excerpt("x" * 100_000)) == 500
    assert "\0" not in Veil([]).excerpt("a\0b")

"""Masks, hashes and pseudonyms: known vectors, what is alike, where keys come from, and what is never shown."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import logging
import subprocess
import sys

import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from leadferry.errors import RenderError
from leadferry.formats.base import FileContext
from leadferry.formats.csv import Csv
from leadferry.mapping.fields import LEAD_ID, Mapping, OutputField
from leadferry.mapping.step import Context
from leadferry.mapping.transforms import Transform

CONTEXT = Context(timezone="America/New_York", locale="en_US", sources=pl.DataFrame())
KEY = "correct horse battery staple"


def run(step, *values):
    column = pl.Series(values, dtype=pl.String)
    return Transform.model_validate(step).apply(column, CONTEXT).to_list()


@pytest.fixture
def keys(monkeypatch):
    """Connections as Airflow finds them in the environment."""
    for name, password in (
        ("BUYER_KEY", KEY),
        ("OTHER_KEY", KEY[::-1]),
        ("SHORT_KEY", "salt"),
        ("NO_KEY", None),
    ):
        connection = json.dumps({"conn_type": "generic", "password": password})
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", connection)
    monkeypatch.setenv("AIRFLOW_CONN_BAD_KEY", "{salt")


@pytest.mark.req("R070")
@pytest.mark.parametrize(
    ("show", "value", "expected"),
    [
        ("last4", "2015551234", "******1234"),
        ("last4", "+1 201 555-1234", "***********1234"),
        ("last4", "12345", "*2345"),
        ("last4", "1234", "****"),
        ("last4", "é\n👩x", "****"),
        ("last4", "é\n👩xy", "*\n👩xy"),
        ("last12", "2015551234", "**********"),
        ("first1", "Josephine", "J********"),
        ("first2", "Jo", "**"),
        ("first2", "Zoë", "Zo*"),
        ("nothing", "any thing", "*********"),
        ("email", "josephine@example.com", "j***@example.com"),
        ("email", " Jo.Doe+x@Mail.Example.com ", "J***@Mail.Example.com"),
        ("email", "j@example.com", "***@example.com"),
        ("email", "éva@example.com", "é***@example.com"),
        ("email", "no address", None),
        ("email", "a@b@example.com", None),
        ("email", "@example.com", None),
    ],
)
def test_a_mask_shows_what_it_says_and_nothing_whole(show, value, expected):
    assert run({"mask": show}, value, None) == [expected, None]


ABC = {
    "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",  # FIPS 180-4, example 1
    "md5": "900150983cd24fb0d6963f7d28e17f72",  # RFC 1321, A.5
}


@pytest.mark.req("F30")
@pytest.mark.parametrize("algorithm", ABC)
def test_hashes_are_those_of_the_standards(algorithm):
    assert run({"hash": algorithm}, "abc", " abc\n", None) == [ABC[algorithm], ABC[algorithm], None]


@pytest.mark.req("F30")
@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("sha256", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        ("md5", "750c783e6ab0b503eaa86e310a5db738"),
    ],
)
def test_a_keyed_hash_is_the_hmac_of_the_standards(monkeypatch, algorithm, expected):
    """RFC 4231 and RFC 2202, test case 2."""
    monkeypatch.setenv("AIRFLOW_CONN_JEFE", json.dumps({"conn_type": "generic", "password": "Jefe"}))
    step = {"hash": {"algorithm": algorithm, "key": "jefe"}}
    assert run(step, "what do ya want for nothing?") == [expected]


@pytest.mark.req("F30")
@pytest.mark.parametrize(
    ("options", "typed", "hashed"),
    [
        ({"of": "email"}, " Jo@Example.COM ", "jo@example.com"),
        ({"of": "digits"}, "(201) 555-0123", "2015550123"),
        ({"of": "phone", "region": "US"}, "(201) 555-0123", "+12015550123"),
        ({"of": "phone", "region": "US"}, "+44 20 7946 0958", "+442079460958"),
        ({}, " Zoë  O'Neil ", "Zoë  O'Neil"),
    ],
)
def test_values_are_made_alike_before_they_are_hashed(options, typed, hashed):
    step = {"hash": {"algorithm": "sha256", **options}}
    assert run(step, typed) == [hashlib.sha256(hashed.encode()).hexdigest()]


@pytest.mark.parametrize(
    ("options", "value"),
    [({"of": "email"}, "nobody"), ({"of": "digits"}, "none"), ({"of": "phone", "region": "US"}, "555-01")],
)
def test_what_is_no_such_identifier_fails_and_is_not_hashed(options, value, keys):
    assert run({"hash": {"algorithm": "sha256", **options}}, value) == [None]
    assert run({"pseudonym": {"key": "buyer_key", **options}}, value) == [None]


@pytest.mark.req("R071")
def test_a_person_has_one_pseudonym_within_a_key_and_another_with_another_key(keys):
    step = {"pseudonym": {"key": "buyer_key", "of": "email"}}
    one, same, other = run(step, "jo@example.com", " JO@example.com", "al@example.com")
    assert one == same != other
    assert run(step, "jo@example.com") == [one]
    (elsewhere,) = run({"pseudonym": {"key": "other_key", "of": "email"}}, "jo@example.com")
    assert elsewhere not in {one, other}


@pytest.mark.req("R071")
def test_a_pseudonym_is_a_readable_token_that_can_be_recomputed_with_the_key(keys):
    (token,) = run({"pseudonym": {"key": "buyer_key", "prefix": "P-"}}, "jo@example.com")
    bits = int.from_bytes(hmac.digest(KEY.encode(), b"jo@example.com", "sha256")[:10])
    crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    signs = "".join(crockford[bits >> shift & 31] for shift in range(75, -1, -5))
    assert token == "P-" + "-".join(signs[start : start + 4] for start in range(0, 16, 4))


def test_no_two_of_many_people_share_a_pseudonym(keys):
    people = [f"person{number}@example.com" for number in range(20_000)]
    assert len(set(run({"pseudonym": "buyer_key"}, *people))) == len(people)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ({"hash": {"algorithm": "sha256", "key": "nowhere"}}, "connection 'nowhere': Airflow does not know"),
        ({"pseudonym": "nowhere"}, "connection 'nowhere': Airflow does not know"),
        ({"hash": {"algorithm": "sha256", "key": "no_key"}}, "connection 'no_key': it has no password"),
        ({"pseudonym": "no_key"}, "connection 'no_key': it has no password"),
        ({"pseudonym": "bad_key"}, "connection 'bad_key'"),
        ({"pseudonym": "short_key"}, "'short_key': its password is the key, and must have at least 16"),
    ],
)
def test_a_key_that_is_missing_or_too_short_fails_before_anything_is_written(keys, step, says):
    with pytest.raises(RenderError, match=says) as failed:
        run(step, "SECRET")
    assert "SECRET" not in str(failed.value)
    assert "salt" not in str(failed.value)
    assert failed.value.__cause__ is None


def test_the_key_is_read_once_for_a_file(keys, monkeypatch):
    step = Transform.model_validate({"pseudonym": "buyer_key"})
    column = pl.Series(["jo@example.com"])
    first = step.apply(column, CONTEXT).to_list()
    monkeypatch.setenv("AIRFLOW_CONN_BUYER_KEY", json.dumps({"conn_type": "generic", "password": KEY[::-1]}))
    assert step.apply(column, CONTEXT).to_list() == first


@pytest.mark.parametrize(
    "step", [{"hash": {"algorithm": "md5", "key": "buyer_key"}}, {"pseudonym": "buyer_key"}]
)
def test_the_key_is_in_no_dump_and_no_representation_of_the_step(keys, step):
    used = Transform.model_validate(step)
    used.apply(pl.Series(["x"]), CONTEXT)
    assert KEY not in repr(used) + used.model_dump_json()
    frozen = TypeAdapter(Transform).dump_json(used)
    assert TypeAdapter(Transform).validate_json(frozen) == Transform.model_validate(step) == used


PEOPLE = pl.DataFrame(
    {
        LEAD_ID: [1, 2],
        "email": ["josephine.darakjy@example.com", "not an address at all"],
        "phone_1": ["(201) 555-0123", "(212) 555-0187"],
    }
)


def mapping(*, on_error):
    fields = [
        {"to": "Mail", "from": "email", "transform": [{"mask": "email"}], "on_error": on_error},
        {"to": "Phone", "from": "phone_1", "transform": ["digits", {"mask": "last4"}]},
        {"to": "Hash", "from": "phone_1", "transform": [{"hash": {"algorithm": "sha256", "of": "digits"}}]},
        {
            "to": "Person",
            "from": "phone_1",
            "transform": [{"pseudonym": {"key": "buyer_key", "of": "digits"}}],
        },
    ]
    return Mapping([OutputField.model_validate(one) for one in fields], timezone="UTC", locale="en_US")


@pytest.mark.req("R070", "R071")
def test_the_full_values_are_neither_in_the_file_nor_in_the_log(keys, caplog):
    caplog.set_level(logging.DEBUG)
    mapped = mapping(on_error="blank").apply(PEOPLE)
    out = io.BytesIO()
    Csv(header=False).write([mapped.frame], out, FileContext(columns=mapped.frame.columns, rows=2))
    text = out.getvalue().decode()
    assert text.startswith("j***@example.com,******0123,")
    for secret in ("josephine", "not an", "555-0", "2015550123", "2125550187", KEY):
        assert secret not in text + caplog.text


@pytest.mark.req("R070")
def test_the_full_values_are_not_in_the_error(keys):
    with pytest.raises(RenderError, match=r"'Mail': transform mask cannot handle .*lead ids 2") as failed:
        mapping(on_error="fail").apply(PEOPLE)
    assert "not an address" not in str(failed.value)


@pytest.mark.parametrize(
    ("step", "place", "says"),
    [
        ({"mask": "last"}, ("mask", "show"), "pattern"),
        ({"mask": "last0"}, ("mask", "show"), "pattern"),
        ({"mask": "mail"}, ("mask", "show"), "pattern"),
        ({"hash": "sha1"}, ("hash", "algorithm"), "'sha256' or 'md5'"),
        ({"hash": {"algorithm": "md5", "of": "phone"}}, ("hash",), "of: phone needs it"),
        ({"hash": {"algorithm": "md5", "region": "US"}}, ("hash",), "region goes with of: phone"),
        ({"hash": {"algorithm": "md5", "salt": "x"}}, ("hash", "salt"), "Extra inputs"),
        ({"hash": {"algorithm": "md5", "key": "a key in the file!"}}, ("hash", "key"), "pattern"),
        ({"pseudonym": {}}, ("pseudonym", "key"), "required"),
    ],
)
def test_a_mistake_is_told_at_its_place(step, place, says):
    with pytest.raises(ValidationError) as caught:
        Transform.model_validate(step)
    assert any(error["loc"] == place and says in error["msg"] for error in caught.value.errors())


def test_reading_a_batch_file_with_keys_loads_neither_polars_nor_airflow():
    code = (
        "import sys; from leadferry.mapping.transforms import Transform\n"
        "Transform.model_validate({'pseudonym': 'k'}); Transform.model_validate({'hash': 'md5'})\n"
        "print([m for m in ('polars', 'airflow', 'phonenumbers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

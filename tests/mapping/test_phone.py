"""Phone numbers: the vectorised way decides exactly as the phonenumbers library does."""

from __future__ import annotations

import csv
from pathlib import Path

import phonenumbers
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leadferry.mapping import phone
from leadferry.mapping.phone import Phone, write_one
from leadferry.mapping.step import Context

CONTEXT = Context(timezone="UTC", locale="en_US", sources=pl.DataFrame())
FORMS = ("e164", "national", "international", "digits")
REGIONS = ("US", "CA", "GB", "DE", "FR", "IT", "MX", "BR", "AR", "AU", "GG", "JP", "IN", "RU", "KZ", "SG")


def run(region, form, *values):
    return Phone(region=region, format=form).apply(pl.Series(values, dtype=pl.String), CONTEXT).to_list()


@pytest.mark.parametrize(
    ("region", "form", "value", "expected"),
    [
        ("US", "e164", "(201) 555-0123", "+12015550123"),
        ("US", "national", "201.555.0123", "(201) 555-0123"),
        ("US", "international", "1 201 555 0123", "+1 201-555-0123"),
        ("US", "digits", "+1 (201) 555-0123", "2015550123"),
        ("US", "e164", "+44 20 7946 0958", "+442079460958"),
        ("US", "national", "+44 20 7946 0958", None),
        ("US", "digits", "+44 20 7946 0958", None),
        ("US", "e164", "201-555-0123 ext. 7", "+12015550123"),
        ("US", "national", "201-555-0123 ext. 7", "(201) 555-0123 ext. 7"),
        ("US", "digits", "201-555-0123 ext. 7", "2015550123"),
        ("US", "e164", "555-0123", None),
        ("US", "e164", "123-456-7890", None),
        ("US", "e164", "call me", None),
        ("GB", "digits", "020 7946 0958", "02079460958"),
        ("GB", "international", "020 7946 0958", "+44 20 7946 0958"),
        ("DE", "national", "+49 30 901820", "030 901820"),
        ("IT", "e164", "06 698 12345", "+390669812345"),
    ],
)
def test_a_valid_number_is_written_in_the_form_and_others_fail(region, form, value, expected):
    assert run(region, form, value) == [expected]


def _national(region):
    kinds = [
        getattr(phonenumbers.PhoneMetadata.metadata_for_region(region), kind)
        for kind in ("general_desc", "fixed_line", "mobile", "toll_free")
    ]
    patterns = [kind.national_number_pattern for kind in kinds if kind and kind.national_number_pattern]
    return st.one_of([st.from_regex(pattern, fullmatch=True, alphabet="0123456789") for pattern in patterns])


@st.composite
def _dialled(draw, region):
    """A number of the region's own pattern, written as people and broken forms write it."""
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region)
    code = str(metadata.country_code)
    fronts = [
        "",
        "",
        "0",
        "1",
        code,
        f"+{code}",
        f"+{code} 0",
        f"00{code}",
        f"011{code}",
        "(",
        "+",
        metadata.national_prefix or "",
    ]
    number = draw(_national(region))
    cut = draw(st.integers(0, len(number)))
    mark = draw(st.sampled_from(["", "-", " ", ") ", ".", " - ", "/", "x", "--- "]))
    end = draw(st.sampled_from(["", "", "", "5", " ", " x12", "a"]))
    return draw(st.sampled_from(fronts)) + number[:cut] + mark + number[cut:] + end


@pytest.mark.parametrize("region", REGIONS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_fast_way_never_differs_from_the_library(region, data):
    values = data.draw(st.lists(_dialled(region), min_size=1, max_size=20))

    for form in FORMS:
        assert run(region, form, *values) == [write_one(value, region=region, form=form) for value in values]


@settings(deadline=None)
@given(st.lists(st.text(alphabet="0123456789+-(). x#\u0661\uff11", max_size=16)))
@example(["0", "00", "+", "", "2" * 300])
def test_the_fast_way_never_differs_on_any_text(values):
    for region in ("US", "DE"):
        assert run(region, "e164", *values) == [
            write_one(value, region=region, form="e164") for value in values
        ]


def test_the_fast_way_never_differs_on_the_sample_numbers():
    path = Path(__file__).parents[2] / "samples" / "us_500.csv"
    with path.open(encoding="utf-8-sig") as lines:
        values = [row["phone1"] for row in csv.DictReader(lines)]
    assert len(values) == 500

    for form in FORMS:
        assert run("US", form, *values) == [write_one(value, region="US", form=form) for value in values]


@pytest.mark.parametrize("region", sorted(phonenumbers.SUPPORTED_REGIONS))
def test_every_region_writes_the_librarys_own_examples_as_the_library_does(region):
    examples = [phonenumbers.example_number_for_type(region, kind) for kind in range(11)]
    values = [
        phonenumbers.format_number(number, form)
        for number in examples
        if number
        for form in (phonenumbers.PhoneNumberFormat.E164, phonenumbers.PhoneNumberFormat.NATIONAL)
    ]

    for form in FORMS:
        assert run(region, form, *values) == [write_one(value, region=region, form=form) for value in values]


def test_plain_us_numbers_do_not_go_through_the_library_one_by_one(monkeypatch):
    asked = []
    monkeypatch.setattr(phone, "write_one", lambda value, **_: asked.append(value))

    run(
        "US",
        "e164",
        "2015550123",
        "(201) 555-0123",
        "+1 201.555.0123",
        "1-201-555-0123",
        "201 555 0123 x7",
        "201 555 0123 x7",
    )

    assert asked == ["201 555 0123 x7"]

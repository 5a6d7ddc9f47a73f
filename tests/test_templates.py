"""The template language: what it offers, what it refuses and when, and that file names are safe."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from leadferry.errors import BatchConfigError, RenderError
from leadferry.file_names import LONGEST_NAME, file_name, numbered_name, safe_file_name
from leadferry.templates import VARIABLES, FileNameTemplate, Template, compile_template, render, variables


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def values(**changes):
    return variables(
        **{
            "batch_id": "acme_auto_daily",
            "batch_name": "Acme Auto",
            "batch_description": "Auto leads",
            "recipient_id": "acme",
            "recipient_name": "Acme Inc.",
            "timezone": "America/New_York",
            "locale": "en_US",
            "delivery_id": "412",
            "delivery_number": 7,
            "departs_at": at("2026-11-23T02:05"),
            "window_from": at("2026-11-20T14:00"),
            "window_to": at("2026-11-23T02:05"),
            "lead_count": 15,
            "file_id": "leads",
            "file_name": "leads.csv",
            "file_part": 2,
            "file_parts": 3,
            "file_segment": "CA",
        }
        | changes
    )


EXPECTED = {
    "batch.id": "acme_auto_daily",
    "batch.name": "Acme Auto",
    "batch.description": "Auto leads",
    "recipient.id": "acme",
    "recipient.name": "Acme Inc.",
    "recipient.timezone": "America/New_York",
    "recipient.locale": "en_US",
    "delivery.id": "412",
    "delivery.number": "7",
    "delivery.date": "2026-11-22",
    "delivery.time": "2105",
    "delivery.period": "2026-11-20 to 2026-11-22",
    "delivery.period_from": "2026-11-20",
    "delivery.period_to": "2026-11-22",
    "delivery.year": "2026",
    "delivery.month": "11",
    "delivery.day": "22",
    "delivery.hour": "21",
    "delivery.minute": "05",
    "delivery.quarter": "4",
    "delivery.week": "2026-W47",
    "delivery.weekday": "Sunday",
    "delivery.month_name": "November",
    "delivery.fiscal_year": "2026",
    "delivery.fiscal_quarter": "Q4",
    "delivery.fiscal_period": "P11",
    "delivery.timezone": "America/New_York",
    "lead.count": "15",
    "file.id": "leads",
    "file.name": "leads.csv",
    "file.part": "2",
    "file.parts": "3",
    "file.segment": "CA",
}


@pytest.mark.req("R112")
@pytest.mark.parametrize(("name", "expected"), EXPECTED.items())
def test_each_variable_has_one_value_wherever_it_stands(name, expected):
    text = f"{{{{ {name} }}}}"
    compile_template(text)

    assert render(text, values()) == expected
    assert file_name(f"x{text}", values()) == safe_file_name(f"x{expected}")


def test_the_variables_are_exactly_the_documented_ones_and_of_the_promised_type():
    given_ = values()

    assert {group: set(names) for group, names in given_.items()} == {
        group: set(names) for group, names in VARIABLES.items()
    }
    assert all(
        isinstance(given_[group][name], kind)
        for group, names in VARIABLES.items()
        for name, kind in names.items()
    )
    assert {f"{group}.{name}" for group, names in VARIABLES.items() for name in names} == EXPECTED.keys()


@pytest.mark.req("R091", "C20")
def test_the_documented_file_name_is_rendered():
    text = "{{ batch.name }}_{{ delivery.date }}_{{ lead.count }}.csv"

    assert file_name(text, values()) == "Acme Auto_2026-11-22_15.csv"


@pytest.mark.req("C06", "C20")
@pytest.mark.parametrize(
    ("start", "end", "zone", "expected"),
    [
        ("2026-11-20T14:00", "2026-11-22T14:00", "America/New_York", "2026-11-20 to 2026-11-22"),
        ("2026-11-20T05:00", "2026-11-21T05:00", "America/New_York", "2026-11-20"),
        ("2026-11-20T05:00", "2026-11-21T05:00", "UTC", "2026-11-20 to 2026-11-21"),
        ("2026-11-20T05:00", "2026-11-20T05:00", "UTC", "2026-11-20"),
        (None, "2026-11-22T05:00", "America/New_York", "up to 2026-11-21"),
    ],
)
def test_the_period_tells_days_in_the_recipients_zone_and_its_end_is_not_part_of_it(
    start, end, zone, expected
):
    told = values(window_from=start and at(start), window_to=at(end), timezone=zone)

    assert told["delivery"]["period"] == expected


def test_names_of_days_and_months_are_in_the_recipients_language():
    assert (
        render("{{ delivery.weekday }} {{ delivery.month_name }}", values(locale="de_DE"))
        == "Sonntag November"
    )


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="without a zone"):
        values(departs_at=at("2026-01-01T00:00").replace(tzinfo=None))


def test_an_unknown_locale_is_told():
    with pytest.raises(ValueError, match="'xx' is no known locale"):
        values(locale="xx")


@pytest.mark.req("R091")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "{{ batch.nmae }}",
            "line 1: variable 'batch.nmae' is unknown; did you mean batch.name? Allowed are batch.description, batch.id",
        ),
        ("\n{{ batch['nmae'] }}", "line 2: variable 'batch.nmae' is unknown; did you mean batch.name?"),
        ("{% if false %}{{ delivery.dat }}{% endif %}", "did you mean delivery.date?"),
        ("{{ btach.name }}", "unknown variable 'btach'; did you mean"),
        ("{{ lead.email }}", "variable 'lead.email' is unknown; Allowed are lead.count"),
        ("{{ leads }}", "unknown variable 'leads'"),
        ("{{ batch }}", "'batch' alone is no text"),
        ("{{ batch[delivery.date] }}", "'batch' alone is no text"),
        ("{% for one in batch %}{{ one }}{% endfor %}", "'batch' alone is no text"),
        ("{{ delivery.date.year }}", "'delivery.date' has no part 'year'; did you mean delivery.year?"),
        ("{{ batch.name.__class__ }}", "has no part '__class__'"),
        ("{{ batch.name | uper }}", "no filter 'uper'; did you mean upper?"),
        ("{{ batch.name is strng }}", "no test 'strng'; did you mean string?"),
        ("{{ [1, 2] | random }}", "no filter 'random'"),
        ("{{ lipsum() }}", "unknown variable 'lipsum'"),
        ("{% set batch = 1 %}", "cannot be set"),
        ("{% include 'x' %}", "cannot load another"),
        ("{% import 'x' as x %}", "cannot load another"),
        ("{{ batch.name", "line 1: unexpected end of template"),
        ("{% if %}{% endif %}", "line 1: "),
    ],
)
def test_a_mistake_is_found_without_rendering(text, says):
    with pytest.raises(BatchConfigError) as caught:
        compile_template(text)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no variables, 100 %", "no variables, 100 %"),
        ("{{ batch.name | lower | replace(' ', '-') }}", "acme-auto"),
        ("{{ batch.name.upper() }}", "ACME AUTO"),
        ("{{ '%05d' | format(lead.count) }}", "00015"),
        ("{{ lead.count * 2 + 1 }}", "31"),
        ("{% if file.parts > 1 %}part {{ file.part }}{% endif %}", "part 2"),
        ("{% for n in range(3) %}{{ loop.index }}{% endfor %}", "123"),
        ("{% set day = delivery.day ~ '.' %}{{ day }}", "22."),
        ("{{ batch['name'] }}\n", "Acme Auto\n"),
        ("<{{ batch.name }}>", "<Acme Auto>"),
    ],
)
def test_templates_can_do_what_a_name_or_a_letter_needs(text, expected):
    compile_template(text)

    assert render(text, values()) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 10000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ range(100000000) | list }}",
        "{{ lead.count / 0 }}",
        "{{ batch.name + lead.count }}",
        "{{ batch.nmae }}",
        "{{ x",
    ],
)
def test_what_cannot_or_must_not_be_done_is_a_render_error(text):
    with pytest.raises(RenderError, match="cannot be filled in") as caught:
        render(text, values())

    assert caught.value.__cause__ is None


class _Model(BaseModel):
    subject: Template = ""
    name: FileNameTemplate = "x"


def test_a_model_checks_its_templates_and_survives_being_frozen():
    model = _Model(subject="{{ file.name }}", name="{{ delivery.date }}.csv")

    assert _Model.model_validate(model.model_dump(mode="json")) == model
    assert _Model.model_json_schema()["properties"]["subject"]["type"] == "string"


@pytest.mark.req("R091")
@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("subject", "{{ batch.nmae }}", "did you mean batch.name?"),
        ("name", "{{ batch.nmae }}", "did you mean batch.name?"),
        ("name", "{{ file.name }}.csv", "variable 'file.name' is not known here"),
        ("name", " ", "a file needs a name"),
    ],
)
def test_a_model_tells_the_place_of_a_wrong_template(field, text, says):
    with pytest.raises(ValidationError) as caught:
        _Model.model_validate({field: text})

    assert [(error["loc"], says in error["msg"]) for error in caught.value.errors()] == [((field,), True)]


@pytest.mark.req("R091", "F53")
@pytest.mark.parametrize(
    ("rendered", "expected"),
    [
        ("leads 2026.csv", "leads 2026.csv"),
        ("leads_11/22/2026.csv", "leads_11_22_2026.csv"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..\\..\\boot.ini", "_.._boot.ini"),
        ("/absolute", "_absolute"),
        (".hidden", "hidden"),
        ("--rf.csv", "rf.csv"),
        ("C:evil.csv", "C_evil.csv"),
        ('a<b>|"c"?*.csv', "a_b___c___.csv"),
        ("a\x00b\r\nc\td.csv", "ab c d.csv"),
        ("invoice\u202egpj.csv", "invoicegpj.csv"),
        ("con", "_con"),
        ("LPT1.csv", "_LPT1.csv"),
        ("console.csv", "console.csv"),
        ("trailing. . ", "trailing"),
        ("", "file"),
        (" .. ", "file"),
        ("e\u0301t\u00e9.csv", "\u00e9t\u00e9.csv"),
        ("x" * 300 + ".csv.gz", "x" * 193 + ".csv.gz"),
        ("\u00e9" * 300 + ".csv", "\u00e9" * 98 + ".csv"),
        ("x" * 300, "x" * 200),
        ("a." + "b" * 300, "a." + "b" * 198),
    ],
)
def test_a_name_becomes_safe(rendered, expected):
    assert safe_file_name(rendered) == expected


@pytest.mark.req("F53")
@pytest.mark.parametrize(
    ("name", "number", "expected"),
    [
        ("leads.csv", 1, "leads.csv"),
        ("leads.csv", 2, "leads_2.csv"),
        ("leads.csv.gz.pgp", 10, "leads_10.csv.gz.pgp"),
        ("leads_2026.01.31.csv", 2, "leads_2026.01.31_2.csv"),
        ("leads", 2, "leads_2"),
        ("leads_2.csv", 2, "leads_2_2.csv"),
        ("x" * 196 + ".csv", 12, "x" * 193 + "_12.csv"),
        ("\u00e9" * 98 + ".csv", 2, "\u00e9" * 97 + "_2.csv"),
    ],
)
def test_a_numbered_name_keeps_its_endings_and_fits(name, number, expected):
    assert numbered_name(name, number) == expected
    assert safe_file_name(expected) == expected


@pytest.mark.req("R091")
@given(st.one_of(st.text(max_size=300), st.text(alphabet="./\\ -_:conNUL1~\u00e9\u0301\u202e", max_size=260)))
@example("x" * 195 + " .csv")
@example("nul .csv")
@example("a\u0301" * 150)
@example("." * 300 + ".csv")
def test_any_name_is_safe_and_stays_as_it_is_when_made_safe_again(text):
    name = safe_file_name(text)

    assert name
    assert len(name.encode()) <= LONGEST_NAME
    assert not set(name) & set('/\\<>:"|?*\r\n\t\0')
    assert name[0] not in ".- "
    assert name[-1] not in ". "
    assert name.split(".")[0].strip().upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT1"}
    assert safe_file_name(name) == name


DOCS = (Path(__file__).parents[1] / "docs" / "reference" / "templates.md").read_text(encoding="utf-8")


@pytest.mark.req("R112")
def test_the_page_lists_every_variable_with_a_true_example():
    assert dict(re.findall(r"^\| `(\w+\.\w+)` \| `(.*?)` \|", DOCS, re.MULTILINE)) == EXPECTED


def test_the_templates_of_the_page_give_what_it_says():
    examples = re.findall(r"^\| `(.*[{][{%].*)` \| `(.*)` \|$", DOCS, re.MULTILINE)

    assert len(examples) == 4
    assert [render(text.replace("\\|", "|"), values()) for text, _ in examples] == [
        expected for _, expected in examples
    ]


def test_the_message_of_the_page_is_the_real_one():
    with pytest.raises(BatchConfigError) as caught:
        compile_template("{{ batch.nmae }}")

    assert f"\n{caught.value}\n" in DOCS

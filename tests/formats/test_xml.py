"""XML: the contract, names, nesting, attributes, namespaces, what is forbidden."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from pydantic import ValidationError

from contracts.format_contract import FormatContract, context, frame, nasty, written
from leadferry.errors import RenderError
from leadferry.formats.xml import Xml

FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def parsed(data):
    return etree.fromstring(data)


class TestXmlContract(FormatContract):
    @pytest.fixture
    def written_by(self):
        return Xml()

    def read(self, data):
        return [_Record((field.tag, field.text or "") for field in lead) for lead in parsed(data)]


class _Record(dict):
    """A record in which a field that has no element is a field without a value."""

    def __eq__(self, other):
        return dict(self) == {name: value for name, value in other.items() if value is not None}

    __hash__ = None


def test_the_document_is_right_to_the_byte():
    leads = frame(name=["A & <B>", "É\r\n"], zip=["02138", None])
    assert written(Xml(), leads) == (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<leads>\n'
        b"<lead><name>A &amp; &lt;B&gt;</name><zip>02138</zip></lead>\n"
        b"<lead><name>\xc3\x89&#13;\n</name></lead>\n</leads>\n"
    )


@pytest.mark.req("R087")
def test_root_record_and_fields_have_the_names_of_the_batch_file():
    wanted = Xml(
        root="LeadDelivery", record="Prospect", names={"First Name": "FirstName", "Código": "Código-1"}
    )
    root = parsed(written(wanted, frame(**{"First Name": ["A"], "Código": ["B"], "zip": ["C"]})))
    assert root.tag == "LeadDelivery"
    assert [one.tag for one in root] == ["Prospect"]
    assert [(one.tag, one.text) for one in root[0]] == [("FirstName", "A"), ("Código-1", "B"), ("zip", "C")]


BAD_NAMES = ["", "First Name", "1st", "-a", ".a", "a:b", "a&b", "<a>", "a/b", "é\u0000", "a\n", "$"]


@pytest.mark.req("R087")
@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(
    "key",
    [
        lambda name: {"root": name},
        lambda name: {"record": name},
        lambda name: {"names": {"a": name}},
        lambda name: {"names": {"a": f"b.{name}"}},
        lambda name: {"root_attributes": {name: "x"}},
        lambda name: {"namespace": {"uri": "urn:x", "prefix": name}},
    ],
    ids=["root", "record", "names", "names below", "root_attributes", "prefix"],
)
def test_names_that_are_no_xml_names_are_refused_when_the_batch_file_is_read(key, name):
    with pytest.raises(ValidationError):
        Xml(**key(name))


@pytest.mark.req("R087")
def test_field_names_that_are_no_xml_names_are_a_problem_that_says_the_way_out():
    (problem,) = Xml().problems(["zip", "First Name"])
    assert "'First Name'" in problem
    assert "names" in problem
    with pytest.raises(RenderError, match="First Name"):
        written(Xml(), frame(**{"First Name": ["A"]}))


@pytest.mark.parametrize("names", [("a", "a.b"), ("a.b", "a"), ("a..b",), (".a",), ("@a.b",), ("a", "@")])
def test_names_that_cannot_be_nested_are_a_problem(names):
    assert Xml().problems(names)


def test_a_name_for_a_field_that_does_not_exist_is_a_problem():
    assert "zipp" in Xml(names={"zipp": "code"}).problems(["zip"])[0]
    assert Xml(nested=False, names={"a": "b"}).problems(["a", "b"])


@pytest.mark.req("R088")
def test_dotted_names_are_nested_elements():
    leads = frame(
        **{"contact.name.first": ["A"], "zip": ["1"], "contact.name.last": ["B"], "contact.phone": ["2"]}
    )
    root = parsed(written(Xml(), leads))
    assert etree.tostring(root[0], with_tail=False).decode() == (
        "<lead><contact><name><first>A</first><last>B</last></name><phone>2</phone></contact><zip>1</zip></lead>"
    )


def test_dots_stay_in_the_name_when_nesting_is_off():
    assert parsed(written(Xml(nested=False), frame(**{"contact.name": ["A"]})))[0][0].tag == "contact.name"


@pytest.mark.req("R089")
@pytest.mark.parametrize("prefix", ["lf", None])
def test_every_element_is_in_the_namespace(prefix):
    leads = frame(**{"contact.name": ["A"], "id": ["1"]})
    wanted = Xml(namespace={"uri": "https://example.com/leads/1", "prefix": prefix}, names={"id": "@id"})
    root = parsed(written(wanted, leads))
    elements = list(root.iter())
    assert [etree.QName(one).localname for one in elements] == ["leads", "lead", "contact", "name"]
    assert {etree.QName(one).namespace for one in elements} == {"https://example.com/leads/1"}
    assert {one.prefix for one in elements} == {prefix}
    assert root[0].attrib == {"id": "1"}


@pytest.mark.parametrize(
    "namespace",
    [
        {"uri": ""},
        {"uri": "a b"},
        {"uri": 'x"'},
        {"uri": "urn:x", "prefix": "xml"},
        {"uri": "urn:x", "prefix": "XMLfoo"},
        {"uri": "http://www.w3.org/2000/xmlns/"},
        {"prefix": "a"},
    ],
)
def test_namespaces_that_cannot_be_are_refused(namespace):
    with pytest.raises(ValidationError):
        Xml(namespace=namespace)


def test_fields_can_be_attributes_at_any_level():
    leads = frame(id=['7 "&<\n\t\r'], kind=[None], name=["A"])
    wanted = Xml(names={"id": "@id", "kind": "contact.@kind", "name": "contact.name"}, null="empty")
    record = parsed(written(wanted, leads))[0]
    assert record.attrib == {"id": '7 "&<\n\t\r'}
    assert record[0].attrib == {}
    assert record[0][0].text == "A"


def test_the_root_can_tell_facts_of_the_batch():
    facts = {"batch": '{{ batch.name }} <&">', "count": "{{ lead.count }}"}
    root = parsed(written(Xml(root_attributes=facts), frame(a=["1", "2"])))
    assert root.attrib == {"batch": 'Acme Auto <&">', "count": "2"}


@pytest.mark.parametrize(
    ("policy", "golden"),
    [
        ("omit", "<lead/>\n<lead><b></b></lead>"),
        ("empty", "<lead><a/><b/></lead>\n<lead><a/><b></b></lead>"),
        (
            "nil",
            '<lead><a xsi:nil="true"/><b xsi:nil="true"/></lead>\n<lead><a xsi:nil="true"/><b></b></lead>',
        ),
    ],
)
def test_no_value_and_empty_text_are_told_apart(policy, golden):
    data = written(Xml(null=policy), frame(a=[None, None], b=[None, ""]))
    assert data.decode().split("leads", 1)[1].split(">\n", 1)[1] == f"{golden}\n</leads>\n"
    parsed(data)


def test_a_group_of_fields_without_values_is_left_out_with_them():
    leads = frame(**{"id": ["1"], "contact.name.first": [None], "contact.phone": [None]})
    assert etree.tostring(parsed(written(Xml(), leads))[0], with_tail=False) == b"<lead><id>1</id></lead>"


def test_indented_it_is_what_lxml_would_indent():
    leads = frame(**{"id": ["1", None], "contact.name": ["A", None], "contact.phone": [None, None]})
    data = written(Xml(indent=2, names={"id": "@id"}), leads)
    plain = etree.fromstring(data, etree.XMLParser(remove_blank_text=True))
    etree.indent(plain, "  ")
    assert data == b'<?xml version="1.0" encoding="UTF-8"?>\n' + etree.tostring(plain) + b"\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "iso-8859-1", "windows-1252"])
def test_no_encoding_loses_a_character(encoding):
    data = written(Xml(encoding=encoding), nasty())
    assert TestXmlContract().read(data) == TestXmlContract().expect(nasty())
    assert data.startswith(f'<?xml version="1.0" encoding="{encoding.upper()}"?>'.encode())


@pytest.mark.req("F13", "C17")
@pytest.mark.parametrize(("policy", "golden"), [("remove", "ab"), ("replace", "a\ufffd\ufffdb")])
def test_control_characters_are_taken_out_and_counted(policy, golden):
    changes = []
    leads = [frame(n=["1", "\x00"], a=["a\x0b\x1fb", "\t\n\r"]), frame(n=["1"], a=["a\ufffe\uffffb"])]
    out = io.BytesIO()
    Xml(control_characters=policy).write(leads, out, context(*leads, report=changes.append))
    root = parsed(out.getvalue())
    assert [lead.findtext("a") for lead in root] == [golden, "\t\n\r", golden]
    assert [(change.column, change.count) for change in changes] == [("n", 1), ("a", 2)]


def test_control_characters_can_fail_the_file_with_column_and_count():
    with pytest.raises(RenderError, match="2 values of column 'a' hold control characters") as failed:
        written(Xml(control_characters="fail"), frame(a=["a\x0bSECRET", "x"]), frame(a=["\x00"]))
    assert "SECRET" not in str(failed.value)


def test_a_fact_with_control_characters_fails_the_file():
    with pytest.raises(RenderError, match="root attribute 'a'"):
        written(Xml(root_attributes={"a": "x\x0by"}), frame(a=["1"]))


@settings(deadline=None, derandomize=True, database=None, max_examples=120)
@given(
    values=st.lists(st.none() | st.text(), min_size=1),
    indent=st.sampled_from([None, 2]),
    encoding=st.sampled_from(["utf-8", "ascii", "windows-1252"]),
    path=st.sampled_from(["a", "b.a", "@a", "b.@a"]),
)
def test_any_text_that_xml_can_hold_reads_back_the_same(values, indent, encoding, path):
    legal = [value if value is None else FORBIDDEN.sub("", value) for value in values]
    leads = frame(n=["1"] * len(values), v=legal)
    root = parsed(
        written(Xml(indent=indent, encoding=encoding, names={"v": path}, control_characters="fail"), leads)
    )
    assert [_found(lead, path) for lead in root] == legal


def _found(lead, path):
    *parents, last = path.split(".")
    place = lead.find("/".join(parents)) if parents else lead
    if place is None:
        return None
    if last.startswith("@"):
        return place.get(last[1:])
    element = place.find(last)
    return None if element is None else element.text or ""

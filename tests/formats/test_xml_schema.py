"""XML held against the recipient's schema: what fits, what does not, what the message says, bad schemas, memory."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from batches import add_leads, folder, make_batch, rows
from contracts.format_contract import FormatContract, context, frame, written
from ferry import Ferry
from leadferry.errors import RenderError
from leadferry.formats import Format
from leadferry.formats.xml import Xml

SCHEMA = """<?xml version="1.0" encoding="UTF-8"?>
<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <xs:include schemaLocation="parts/types.xsd"/>
  <xs:element name="leads">
    <xs:complexType>
      <xs:sequence>
        <xs:element name="lead" minOccurs="0" maxOccurs="unbounded">
          <xs:complexType>
            <xs:sequence>
              <xs:element name="name" type="xs:string"/>
              <xs:element name="zip" type="Zip"/>
              <xs:element name="state" type="State" minOccurs="0"/>
              <xs:element name="age" minOccurs="0">
                <xs:simpleType><xs:restriction base="xs:int"><xs:minInclusive value="18"/></xs:restriction></xs:simpleType>
              </xs:element>
            </xs:sequence>
            <xs:attribute name="id" type="xs:int" use="required"/>
          </xs:complexType>
        </xs:element>
      </xs:sequence>
    </xs:complexType>
    <xs:unique name="ids"><xs:selector xpath="lead"/><xs:field xpath="@id"/></xs:unique>
  </xs:element>
</xs:schema>
"""
TYPES = """<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:include schemaLocation="../states.xsd"/>
<xs:simpleType name="Zip"><xs:restriction base="xs:string"><xs:pattern value="[0-9]{5}"/></xs:restriction></xs:simpleType>
</xs:schema>"""
STATES = """<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:simpleType name="State"><xs:restriction
base="xs:string"><xs:enumeration value="NJ"/><xs:enumeration value="CA"/></xs:restriction></xs:simpleType></xs:schema>"""


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "config"
    (folder / "schemas/parts").mkdir(parents=True)
    (folder / "schemas/leads.xsd").write_text(SCHEMA)
    (folder / "schemas/parts/types.xsd").write_text(TYPES)
    (folder / "schemas/states.xsd").write_text(STATES)
    return folder


def xml(config, path="schemas/leads.xsd", **keys):
    wanted = {"type": "xml", "schema": path, "names": {"id": "@id"}, **keys}
    return TypeAdapter(Format).validate_python(wanted, context={"config": config})


def leads(*, zips=("02138",), **columns):
    count = len(zips)
    ids = columns.pop("id", [str(number) for number in range(1, count + 1)])
    return frame(id=ids, name=["A"] * count, zip=list(zips), **columns)


class TestXmlWithSchemaContract(FormatContract):
    """The contract's own leads, with a schema that lets every record pass: the bytes stay those without a schema."""

    @pytest.fixture
    def written_by(self, tmp_path):
        (tmp_path / "any.xsd").write_text(
            '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema"><xs:element name="leads"><xs:complexType><xs:sequence>'
            '<xs:any minOccurs="0" maxOccurs="unbounded" processContents="skip"/></xs:sequence></xs:complexType>'
            "</xs:element></xs:schema>"
        )
        return xml(tmp_path, "any.xsd", names={}, null="empty")

    def read(self, data):
        from lxml import etree

        return [{field.tag: field.text or "" for field in lead} for lead in etree.fromstring(data)]

    def expected(self, value):
        return value or ""


@pytest.mark.req("R090")
def test_a_document_that_fits_is_the_same_as_without_a_schema(config):
    some = leads(zips=["02138", "10001"], state=["NJ", None])
    assert written(xml(config), some) == written(Xml(names={"id": "@id"}), some)
    assert written(xml(config), some.clear()) == written(Xml(names={"id": "@id"}), some.clear())


@pytest.mark.req("R090")
@pytest.mark.skipif(not shutil.which("xmllint"), reason="needs xmllint: apt-get install libxml2-utils")
@pytest.mark.parametrize(("zips", "code"), [(["02138"], 0), (["2138"], 3)])
def test_xmllint_comes_to_the_same_verdict(config, tmp_path, zips, code):
    file = tmp_path / "leads.xml"
    file.write_bytes(written(Xml(names={"id": "@id"}), leads(zips=zips)))
    command = ["xmllint", "--noout", "--schema", config / "schemas/leads.xsd", file]
    assert subprocess.run(command, capture_output=True, check=False).returncode == code
    if code:
        with pytest.raises(RenderError):
            written(xml(config), leads(zips=zips))


BROKEN = [
    ({"zips": ["02138", "SECRET"]}, "line 4, element 'zip' breaks the rule cvc-pattern-valid: is not accepted by the pattern '[0-9]{5}'"),
    ({"state": ["SECRET"]}, "line 3, element 'state' breaks the rule cvc-enumeration-valid: is not an element of the set {'NJ', 'CA'}"),
    ({"age": ["17"]}, "line 3, element 'age' breaks the rule cvc-mininclusive-valid: is less than the minimum value allowed ('18')"),
    ({"age": ["SECRET"]}, "element 'age' breaks the rule cvc-datatype-valid-1-2-1: is not a valid value of the local atomic type"),
    ({"id": ["SECRET"]}, "attribute 'id' of element 'lead' breaks the rule cvc-datatype-valid-1-2-1: is not a valid value of the atomic type 'xs:int'"),
    ({"id": [None]}, "element 'lead' breaks the rule cvc-complex-type-4: The attribute 'id' is required but missing"),
    ({"zips": [None]}, "element 'lead' breaks the rule element-content: Missing child element(s). Expected is ( zip )"),
    ({"note": ["SECRET"]}, "element 'note' breaks the rule element-content: This element is not expected"),
    ({"zips": ["02138"] * 2, "id": ["7", "7"]}, "line 4, element 'lead' breaks the rule cvc-idc"),
]  # fmt: skip


@pytest.mark.req("R090")
@pytest.mark.parametrize(("wrong", "says"), BROKEN)
def test_what_does_not_fit_fails_the_file_with_line_and_rule_and_without_the_value(config, wrong, says):
    with pytest.raises(RenderError) as failed:
        written(xml(config), leads(**wrong))
    assert says in str(failed.value)
    assert "schemas/leads.xsd" in str(failed.value)
    assert "SECRET" not in str(failed.value)
    assert failed.value.__cause__ is None


@pytest.mark.req("R090")
@pytest.mark.parametrize(
    "value",
    [
        "x' is not accepted by the pattern 'SECRET",
        "x'. is less than the minimum value allowed SECRET",
        "SECRET\n': Element 'SECRET': ",
    ],
)
def test_a_value_that_looks_like_a_message_is_not_told_either(config, value):
    for wrong in ({"zips": [value]}, {"state": [value]}, {"age": [value]}, {"id": [value]}):
        with pytest.raises(RenderError) as failed:
            written(xml(config), leads(**wrong))
        assert "SECRET" not in str(failed.value)


@pytest.mark.parametrize("indent", [None, 2])
def test_the_line_is_that_of_the_file_however_far_down(config, indent):
    zips = ["02138"] * 1_700 + ["bad"] + ["02138"] * 10
    some = leads(zips=zips, id=[str(number) for number in range(len(zips))])
    plain = written(Xml(names={"id": "@id"}, indent=indent), some).decode().split("\n")
    (line,) = [number for number, text in enumerate(plain, 1) if ">bad<" in text]
    with pytest.raises(RenderError, match=rf"line {line}, element 'zip'"):
        written(xml(config, indent=indent), some[:900], some[900:])


def test_a_rule_about_the_whole_document_is_told_with_the_lines_where_it_broke(config):
    zips = ["02138"] * 1_200
    ids = [str(number) for number in range(1_199)] + ["0"]
    with pytest.raises(
        RenderError, match=r"between lines 1003 and 1202, element 'lead' breaks the rule cvc-idc"
    ):
        written(xml(config), leads(zips=zips, id=ids))


@pytest.mark.req("R089", "R090")
def test_a_schema_with_a_namespace_is_checked(config):
    namespaced = SCHEMA.replace(
        "<xs:schema ",
        '<xs:schema targetNamespace="urn:leads" xmlns="urn:leads" elementFormDefault="qualified" ',
    ).replace('xpath="lead"', 'xmlns:l="urn:leads" xpath="l:lead"')
    (config / "schemas/leads.xsd").write_text(namespaced)
    namespace = {"uri": "urn:leads", "prefix": "l"}
    assert b"<l:zip>02138</l:zip>" in written(xml(config, namespace=namespace), leads())
    for other in (None, {"uri": "urn:other"}):
        with pytest.raises(RenderError, match=r"line 2, element '.*leads' breaks the rule cvc-elt-1"):
            written(xml(config, namespace=other), leads())


def test_the_frozen_config_holds_the_schema_so_that_the_file_may_change(config):
    first = xml(config)
    frozen = json.loads(json.dumps(first.model_dump(mode="json")))
    shutil.rmtree(config)
    again = TypeAdapter(Format).validate_python(frozen)
    assert again == first
    assert again.model_dump(mode="json") == frozen
    assert set(frozen["schema"]["files"]) == {
        "schemas/leads.xsd",
        "schemas/parts/types.xsd",
        "schemas/states.xsd",
    }
    with pytest.raises(RenderError, match="cvc-enumeration-valid"):
        written(again, leads(state=["XX"]))


def test_the_path_may_begin_with_the_config_folders_own_name(config):
    assert xml(config, "config/schemas/leads.xsd") == xml(config)


def test_without_a_batch_file_the_config_folder_is_the_one_of_the_environment(config, monkeypatch):
    monkeypatch.setenv("LEADFERRY_CONFIG", str(config))
    assert Xml(schema="schemas/leads.xsd", names={"id": "@id"}) == xml(config)


@pytest.mark.req("R090")
@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        (None, None, "there is no file schemas/new.xsd in the config folder config/"),
        ("schemas/new.xsd", "<a", "schemas/new.xsd is no XML"),
        ("schemas/new.xsd", "<a/>", "schemas/new.xsd is no XML Schema"),
        ("schemas/new.xsd", SCHEMA.replace("parts/", "other/"), "no file schemas/other/types.xsd"),
        (
            "schemas/new.xsd",
            SCHEMA.replace("parts/", "../../"),
            "'../../types.xsd' is not in the config folder",
        ),
        ("schemas/new.xsd", SCHEMA.replace("parts/", "https://example.com/"), "is not in the config folder"),
        (
            "schemas/new.xsd",
            SCHEMA.replace('"xs:int"', '"xs:integr"'),
            "'{http://www.w3.org/2001/XMLSchema}integr'",
        ),
        ("schemas/new.xsd", SCHEMA.replace("Zip", "Plz"), "new.xsd is no XML Schema"),
    ],
)
def test_a_schema_that_cannot_be_used_is_an_error_of_the_batch_file(config, file, text, says):
    if file:
        (config / file).write_text(text)
    with pytest.raises(ValidationError) as refused:
        xml(config, "schemas/new.xsd")
    (error,) = refused.value.errors()
    assert error["loc"] == ("xml", "schema")
    assert says in error["msg"]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../secrets.xsd", "schemas/../../x.xsd", "http://example.com/x.xsd", ""]
)
def test_a_schema_outside_of_the_config_folder_is_refused(config, path):
    with pytest.raises(ValidationError):
        xml(config, path)


def test_entities_in_a_schema_read_no_files(config):
    (config / "secret.txt").write_text("SECRET")
    evil = '<!DOCTYPE x [<!ENTITY f SYSTEM "../secret.txt">]>' + SCHEMA.partition("?>")[2].replace(
        '<xs:element name="leads">',
        '<xs:annotation><xs:documentation>&f;</xs:documentation></xs:annotation><xs:element name="leads">',
    )
    (config / "schemas/leads.xsd").write_text(evil.strip())
    with pytest.raises(ValidationError, match="Entity 'f' not defined") as refused:
        xml(config)
    assert "SECRET" not in str(refused.value)


def test_reading_the_frozen_config_loads_no_lxml(config):
    frozen = json.dumps(xml(config).model_dump(mode="json"))
    code = (
        "import json, sys; from pydantic import TypeAdapter; from leadferry.formats import Format\n"
        "TypeAdapter(Format).validate_python(json.loads(sys.argv[1]))\n"
        "print('lxml' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, frozen], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_nothing_is_written_after_what_does_not_fit(config):
    out = io.BytesIO()
    some = leads(zips=["bad"])
    with pytest.raises(RenderError):
        xml(config).write([some], out, context(some))
    assert b"</leads>" not in out.getvalue()


def test_the_docs_name_the_key():
    assert "| `schema` |" in (Path(__file__).parents[2] / "docs/formats/xml.md").read_text()


@pytest.mark.req("R090")
def test_leads_that_do_not_fit_are_back_in_the_queue_and_nothing_is_sent(
    config, database, tmp_path, monkeypatch
):
    monkeypatch.setenv("LEADFERRY_CONFIG", str(config))
    inbox = tmp_path / "inbox"
    batch = make_batch(
        fields=[{"to": name, "from": name} for name in ("id", "name", "zip")],
        files=[
            {
                "name": "leads.xml",
                "format": {"type": "xml", "schema": "schemas/leads.xsd", "names": {"id": "@id"}},
            }
        ],
        destinations=[folder(inbox)],
    )
    for code in ("02138", "SECRET"):
        add_leads(database, fields={"name": "A", "zip": code})
    ferry = Ferry(database, tmp_path / "archive")
    claimed = ferry.extract(batch)
    (config / "schemas/leads.xsd").unlink()
    with pytest.raises(RenderError, match="line 4, element 'zip' breaks the rule cvc-pattern-valid"):
        ferry.render(claimed)
    ferry.settle(claimed)
    assert not inbox.exists()
    assert rows(database, "SELECT count(*) FROM pending") == [(2,)]

"""Which files a batch file may send where: limits, segments and fields that cannot be meant are told with their line."""

import pytest
from pydantic import ValidationError

from batches import make_batch
from leadferry.batch.load import load_batch
from leadferry.batch.model import Batch
from leadferry.batch.problems import BatchFileError
from leadferry.batch.routes import renditions

BATCH = """\
name: Acme, daily
recipient: acme
flows: [auto]
schedule: manual
fields: [{to: Name, from: name}, {to: Zip, from: zip}]
files:
  - id: leads
    name: "NAME"
    format: {type: csv}
    FILE
destinations:
  - {id: share, type: folder, path: out, SHARE}
  - {id: other, type: folder, path: elsewhere, OTHER}
"""
SEGMENT = "segment: {by: state, values: [CA, TX]}"
NAME = "{{ file.segment }}_{{ file.part }}.csv"


@pytest.fixture
def load(tmp_path, monkeypatch):
    config = tmp_path / "config"
    monkeypatch.setenv("LEADFERRY_CONFIG", str(config))
    for folder in ("batches", "recipients"):
        (config / folder).mkdir(parents=True)
    (config / "recipients/acme.yaml").write_text("name: Acme\n")

    def load(*, name=NAME, file="fields: [Zip]", share="create: true", other="create: true"):
        text = BATCH.replace("NAME", name).replace("FILE", file)
        (config / "batches/acme.yaml").write_text(text.replace("SHARE", share).replace("OTHER", other))
        return load_batch("acme", config=config)

    return load


@pytest.mark.req("R108", "R129", "F18")
@pytest.mark.parametrize(
    ("keys", "line", "says"),
    [
        ({"name": "a.csv", "share": "max_rows: 5"}, 12, "its name must contain {{ file.part }}"),
        ({"name": "a.csv", "other": "max_bytes: 5KB"}, 13, "its name must contain {{ file.part }}"),
        (
            {"name": "{{ file.part }}of{{ file.parts }}.csv", "share": "max_bytes: 5KB"},
            12,
            "not known beforehand with a limit in bytes",
        ),
        ({"share": "max_rows: 0"}, 12, "max_rows"),
        ({"share": "max_bytes: 5"}, 12, "max_bytes"),
        ({"share": "segments: [CA]"}, 12, "has no segments and would come whole"),
        ({"file": SEGMENT, "share": "segments: [NY]"}, 12, "no segment 'NY'; there is CA, TX, other"),
        (
            {"file": SEGMENT, "share": "segments: [CA]", "other": "segments: [TX]"},
            10,
            "no destination takes segment 'other'",
        ),
        ({"file": "fields: [Zip, Nmae]"}, 10, "there is no field 'Nmae'; there is Name, Zip"),
        ({"file": "fields: [Zip, Zip]"}, 10, "'Zip' stands twice"),
        ({"file": "fields: []"}, 10, "fields"),
    ],
)
def test_what_cannot_be_meant_is_told_with_file_and_line(load, keys, line, says):
    with pytest.raises(BatchFileError) as refused:
        load(**keys)
    assert says in str(refused.value)
    assert f"config/batches/acme.yaml:{line}:" in str(refused.value)


@pytest.mark.parametrize(
    "keys",
    [
        {"share": "max_rows: 5, max_bytes: 5KB", "other": "max_rows: 7"},
        {"file": SEGMENT, "share": "segments: [CA, other]", "other": "segments: [TX, CA]"},
        {"file": SEGMENT, "share": "segments: [CA]"},
        {
            "file": SEGMENT.replace("}", ", unknown: withhold}"),
            "share": "segments: [CA]",
            "other": "segments: [TX]",
        },
        {"name": "a.csv"},
    ],
)
def test_what_can_be_meant_is_loaded_and_survives_being_frozen(load, keys):
    batch = load(**keys)
    assert batch == Batch.model_validate(batch.model_dump(mode="json"))


def test_a_format_is_checked_with_the_fields_of_its_file_only(load):
    wide = "format: {type: fixed_width, columns: [{name: Zip, width: 5}]}"
    text = f"checksum: sha256\n  - {{id: wide, name: a.txt, {wide}"
    assert load(file=f"{text}, fields: [Zip]}}").files[1].columns(["Name", "Zip"]) == ["Zip"]
    with pytest.raises(BatchFileError, match="'Name' has no place"):
        load(file=f"{text}}}")


def split_of(batch):
    return {
        one.key: (one.file.split and (one.file.split.rows, one.file.split.bytes), sorted(one.destinations))
        for one in renditions(batch.files, batch.destinations)
    }


@pytest.mark.req("R108")
@pytest.mark.parametrize(
    ("split", "limits", "expected"),
    [
        (None, [{}, {}], {"leads": (None, ["d0", "d1"])}),
        (None, [{}, {"max_rows": 5}], {"leads": (None, ["d0"]), "leads.d1": ((5, None), ["d1"])}),
        (None, [{"max_rows": 5}, {"max_rows": 5}], {"leads.d0": ((5, None), ["d0", "d1"])}),
        ({"rows": 5}, [{}, {"max_rows": 9}], {"leads": ((5, None), ["d0", "d1"])}),
        (
            {"rows": 5},
            [{"max_bytes": 2000}, {"max_rows": 3}],
            {"leads.d0": ((5, 2000), ["d0"]), "leads.d1": ((3, None), ["d1"])},
        ),
        (
            {"bytes": 9000},
            [{"max_bytes": 5000}, {}],
            {"leads.d0": ((None, 5000), ["d0"]), "leads": ((None, 9000), ["d1"])},
        ),
    ],
)
def test_a_file_is_rendered_once_for_each_different_limit(split, limits, expected):
    destinations = [
        {"id": f"d{number}", "type": "folder", "path": "out", **keys} for number, keys in enumerate(limits)
    ]
    file = {"name": "{{ file.part }}.csv", "format": {"type": "csv"}, "split": split}
    assert split_of(make_batch(files=[file], destinations=destinations)) == expected


def test_a_file_that_goes_nowhere_is_rendered_once_all_the_same():
    files = [{"id": one, "name": f"{one}.csv", "format": {"type": "csv"}} for one in ("a", "b")]
    destination = {"id": "out", "type": "folder", "path": "out", "files": ["a"]}
    assert split_of(make_batch(files=files, destinations=[destination])) == {
        "a": (None, ["out"]),
        "b": (None, []),
    }


API = {
    "id": "api",
    "type": "http",
    "connection": "api",
    "answers": [{"when": {"status": [200]}, "then": "accepted"}],
}
BY_STATE = {"by": "state", "values": ["CA"]}


def file(file_id="leads", **keys):
    name = f"{file_id}_{{{{ file.segment }}}}_{{{{ file.part }}}}.csv"
    return {"id": file_id, "name": name, "format": {"type": "csv"}, **keys}


def mail(*to, **keys):
    return {"id": "mail", "type": "email", "to": [*to, "leads@acme.example"], "subject": "Leads", **keys}


def boss(*files):
    return {"address": "boss@acme.example", "files": list(files)}


DROP = {"id": "drop", "type": "folder", "path": "out"}
ZIPPED = {"max_message": "1MB", "when_too_large": ["zip"]}
SPLIT = {"max_message": "1MB", "when_too_large": ["zip", "split"]}


@pytest.mark.req("F18", "F39")
@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            {"files": [file(segment=BY_STATE)], "destinations": [{**API, "segments": ["CA"]}, DROP]},
            "takes leads, not files, and would get all of them",
        ),
        (
            {"files": [file("a"), file("b")], "destinations": [mail(boss("b"), files=["a"])]},
            "no file 'b' in this mail; known: a",
        ),
        (
            {
                "files": [file("a"), file("b")],
                "bundles": [{"id": "box", "name": "box.zip", "files": ["a"]}],
                "destinations": [mail(boss("a"))],
            },
            "no file 'a' in this mail; known: b, box",
        ),
        (
            {
                "files": [file(segment=BY_STATE)],
                "recipient": {"id": "acme", "name": "Acme", "allowed_fields": ["id", "email"]},
            },
            "'state', which file names would tell, is not among the allowed_fields",
        ),
        ({"files": [file(segment={**BY_STATE, "values": ["CA "]})]}, "no lead is ever in segment 'CA '"),
        ({"files": [file(segment={**BY_STATE, "values": ["CA", "CA"]})]}, "'CA' stands twice in values"),
        (
            {"destinations": [mail(**SPLIT), {**DROP, "fallback_for": "mail"}]},
            "the fallback 'drop' would bring their leads again",
        ),
        (
            {"files": [file("a"), file("b")], "destinations": [DROP, mail(**ZIPPED, fallback_for="drop")]},
            "a file that arrived at 'drop' would come again",
        ),
        (
            {"files": [file(split={"rows": 9})], "destinations": [DROP, mail(**SPLIT, fallback_for="drop")]},
            "leave `zip` and `split` out",
        ),
    ],
)
def test_what_would_leave_somebody_out_or_bring_leads_twice_is_refused(keys, says):
    with pytest.raises(ValidationError) as refused:
        make_batch(**keys)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "keys",
    [
        {
            "files": [file("a"), file("b")],
            "bundles": [{"id": "box", "name": "box.zip", "files": ["a"]}],
            "destinations": [mail(boss("box"))],
        },
        {"destinations": [DROP, mail(**SPLIT, fallback_for="drop")]},
        {"destinations": [mail(**ZIPPED), {**DROP, "fallback_for": "mail"}]},
        {"files": [file("a"), file("b")], "destinations": [DROP, mail(**SPLIT)]},
    ],
)
def test_remedies_and_personal_files_that_leave_nothing_open_are_taken(keys):
    make_batch(**keys)

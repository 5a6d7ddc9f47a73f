"""Several files in one zip file: what is inside adds up, nothing else is sent, and it can be encrypted as a whole."""

import csv
import hashlib
import io
import json
import zipfile

import pytest

from batches import add_leads, execute, folder, make_batch, rows
from ferry import email, messages
from leadferry.batch.load import load_batch
from leadferry.batch.model import Batch
from leadferry.batch.problems import BatchFileError
from leadferry.errors import RenderError, StoreError
from leadferry.states import DeliveryState
from leadferry.store import ledger

FIELDS = [{"to": "Lead", "from": "id"}, {"to": "State", "from": "state"}]
PARTS = {
    "id": "parts",
    "name": "parts_{{ file.part }}of{{ file.parts }}.csv",
    "format": {"type": "csv"},
    "split": {"rows": 4},
}
TABLE = {"id": "table", "name": "table.json", "format": {"type": "json"}, "fields": ["State"]}
LOOSE = {"id": "loose", "name": "loose.csv", "format": {"type": "csv"}}
BUNDLE = {"id": "all", "name": "acme_{{ delivery.number }}", "files": ["table", "parts"]}


@pytest.fixture
def inbox(tmp_path):
    return tmp_path / "inbox"


@pytest.fixture
def batch(inbox):
    """A batch whose two files travel in one zip file, beside one that does not."""

    def batch(*, files=(PARTS, TABLE, LOOSE), bundle=BUNDLE, destinations=None, **keys):
        where = [folder(inbox)] if destinations is None else destinations
        keys = {"fields": FIELDS, **keys}
        return make_batch(files=list(files), bundles=[bundle], destinations=where, **keys)

    return batch


@pytest.fixture
def carry(ferry, batch):
    def carry(*, count=10, **keys):
        for number in range(count):
            add_leads(ferry.database, fields={"state": ["CA", "TX"][number % 2]})
        return ferry.carry(batch(**keys))

    return carry


def opened(path):
    """The files inside, by name, in their order."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def csv_rows(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


@pytest.mark.req("R092", "F17")
def test_several_files_and_all_their_parts_stand_in_one_zip_in_their_order(carry, inbox, ferry):
    settled = carry()
    assert (settled.state, settled.included) == (DeliveryState.DELIVERED, 10)
    assert sorted(one.name for one in inbox.iterdir()) == ["acme_1.zip", "loose.csv"]
    inside = opened(inbox / "acme_1.zip")
    assert list(inside) == ["table.json", "parts_1of3.csv", "parts_2of3.csv", "parts_3of3.csv"]
    parts = [csv_rows(content) for name, content in inside.items() if name.endswith(".csv")]
    assert [len(part) for part in parts] == [4, 4, 2]
    assert [row for part in parts for row in part] == csv_rows((inbox / "loose.csv").read_bytes())
    assert len(json.loads(inside["table.json"])["leads"]) == 10
    stored = {one.key: one for one in ledger.stored_files(ferry.database, settled.delivery_id)}
    assert set(stored) == {"loose", "all"}
    assert (stored["all"].rows, stored["all"].media_type) == (10, "application/zip")
    assert [(one["key"], one["part"], one["name"], one["rows"]) for one in stored["all"].members] == [
        ("table", 1, "table.json", 10),
        ("parts", 1, "parts_1of3.csv", 4),
        ("parts", 2, "parts_2of3.csv", 4),
        ("parts", 3, "parts_3of3.csv", 2),
    ]
    for one in stored["all"].members:
        content = inside[one["name"]]
        assert (len(content), hashlib.sha256(content).hexdigest()) == (one["size"], one["sha256"])


@pytest.mark.req("F15")
@pytest.mark.parametrize("kind", ["json", "csv"])
def test_manifest_and_checksum_tell_of_the_zip_and_of_what_is_inside(carry, inbox, kind):
    carry(bundle={**BUNDLE, "checksum": "sha256"}, manifest={"name": "m", "format": kind})
    digest = hashlib.sha256((inbox / "acme_1.zip").read_bytes()).hexdigest()
    assert (inbox / "acme_1.zip.sha256").read_text() == f"{digest}  acme_1.zip\n"
    inside = opened(inbox / "acme_1.zip")
    text = (inbox / "m").read_text()
    if kind == "json":
        loose, bundle = json.loads(text)["files"]
        assert (loose["name"], "members" in loose) == ("loose.csv", False)
        members = bundle["members"]
    else:
        loose, bundle, *members = csv.DictReader(io.StringIO(text))
        assert loose["inside"] == bundle["inside"] == ""
        assert {one["inside"] for one in members} == {"acme_1.zip"}
        assert [one["parts"] for one in members] == ["1", "3", "3", "3"]
    assert (bundle["name"], int(bundle["rows"]), bundle["sha256"]) == ("acme_1.zip", 10, digest)
    assert [(one["name"], one["sha256"]) for one in members] == [
        (name, hashlib.sha256(content).hexdigest()) for name, content in inside.items()
    ]


def test_the_same_delivery_rendered_twice_is_the_same_zip(ferry, batch, monkeypatch):
    add_leads(ferry.database, 9)
    claimed = ferry.extract(batch())

    def dies(*_, **__):
        raise StoreError("the store went away")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "record_files", dies)
        with pytest.raises(StoreError):
            ferry.render(claimed)
    first = archived(ferry)
    ferry.render(claimed)
    assert archived(ferry) == first
    assert len(first) == 2


def archived(ferry):
    return {path.name: path.read_bytes() for path in ferry.archive.root.rglob("*") if path.is_file()}


@pytest.mark.req("R093", "F20")
def test_a_bundle_with_a_password_opens_only_with_it_and_nothing_is_archived_in_clear(
    carry, ferry, inbox, monkeypatch
):
    import pyzipper

    secret = json.dumps({"conn_type": "generic", "password": "a long secret"})
    monkeypatch.setenv("AIRFLOW_CONN_ZIP_SECRET", secret)
    encrypt = {"type": "zip_aes", "connection": "zip_secret"}
    plain = {**LOOSE, "id": "emails", "fields": ["State"]}
    carry(
        files=(PARTS, TABLE, plain),
        bundle={**BUNDLE, "files": ["parts", "table", "emails"], "encrypt": encrypt},
    )
    (file,) = inbox.iterdir()
    with pyzipper.AESZipFile(file) as archive:
        with pytest.raises(RuntimeError):
            archive.read("loose.csv", pwd=b"another one")
        assert len(csv_rows(archive.read("parts_1of3.csv", pwd=b"a long secret"))) == 4
    assert all(b"Lead,State" not in content for content in archived(ferry).values())


@pytest.mark.req("R093")
def test_a_bundle_may_be_encrypted_around_the_whole_zip(carry, ferry, inbox):
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    settled = carry(
        bundle={**BUNDLE, "encrypt": {"type": "age", "recipients": [str(identity.to_public())]}},
        files=(PARTS, TABLE),
    )
    (file,) = inbox.iterdir()
    assert file.name == "acme_1.zip.age"
    unlocked = pyrage.decrypt(file.read_bytes(), [identity])
    with zipfile.ZipFile(io.BytesIO(unlocked)) as archive:
        assert len(archive.namelist()) == 4
    (stored,) = ledger.stored_files(ferry.database, settled.delivery_id)
    assert stored.media_type != "application/zip"


@pytest.mark.req("F18")
def test_segments_stand_side_by_side_in_it(carry, inbox):
    segmented = {
        "id": "parts",
        "name": "{{ file.segment }}.csv",
        "format": {"type": "csv"},
        "segment": {"by": "state", "values": ["CA"]},
    }
    carry(files=(segmented, TABLE), count=5)
    inside = opened(inbox / "acme_1.zip")
    assert {name: len(csv_rows(content)) for name, content in inside.items() if name != "table.json"} == {
        "CA.csv": 3,
        "other.csv": 2,
    }


def test_without_any_lead_the_files_inside_have_their_headers(carry, inbox):
    assert carry(count=0, empty="header_only").state is DeliveryState.DELIVERED
    assert opened(inbox / "acme_1.zip")["parts_1of1.csv"] == b"Lead,State\r\n"


def test_a_file_inside_may_be_compressed_or_have_control_records_of_its_own(carry, inbox):
    import gzip

    packed = {**PARTS, "compress": "gzip", "control": {"trailer": "T|{{ control.leads }}"}}
    carry(files=(packed, TABLE), count=5)
    inside = opened(inbox / "acme_1.zip")
    lines = gzip.decompress(inside["parts_2of2.csv.gz"]).decode().splitlines()
    assert lines[-1] == "T|1"


def test_a_failure_in_the_last_file_inside_leaves_nothing_in_the_archive(carry, ferry, inbox):
    broken = {**PARTS, "control": {"trailer": "T", "sums": ["State"]}}
    with pytest.raises(RenderError, match="cannot be added up"):
        carry(files=(broken, TABLE))
    assert archived(ferry) == {}
    assert not inbox.exists()


@pytest.mark.parametrize("remedy", ["split", "zip"])
def test_a_bundle_that_is_too_large_for_a_mail_goes_whole_or_not_at_all(carry, ferry, mail, remedy):
    """Each value is a hash, which does not compress: the bundle has more bytes than a message may have."""
    add_leads(ferry.database, 600)
    settled = carry(
        count=0,
        files=(LOOSE,),
        bundle={**BUNDLE, "files": ["loose"]},
        fields=[{"to": "Hash", "from": "email", "transform": [{"hash": "sha256"}]}],
        destinations=[email("leads@acme.example", max_message="20KB", when_too_large=[remedy, "fail"])],
    )
    assert (settled.state, settled.reason) == (DeliveryState.FAILED, "mail: too_large")
    assert messages(mail) == []


def test_two_files_that_would_have_one_name_inside_are_told(carry):
    with pytest.raises(RenderError, match=r"two files in one bundle would be called table\.json"):
        carry(files=({**PARTS, "name": "{{ 'table.json' if file.part else '' }}"}, TABLE))


@pytest.mark.parametrize("wrong", ["parts", "table"])
def test_i2_the_store_refuses_a_bundle_whose_files_do_not_add_up(ferry, batch, wrong):
    add_leads(ferry.database, 6)
    claimed = ferry.rendered(batch())
    ferry.deliver(claimed, "drop")
    execute(ferry.database, "ALTER TABLE file DISABLE TRIGGER never_changes")
    statement = (
        "UPDATE file SET members = (SELECT jsonb_agg(CASE WHEN m->>'key' = :key AND m->>'part' = '1'"
        " THEN m || '{\"rows\": 3}' ELSE m END) FROM jsonb_array_elements(members) m) WHERE key = 'all'"
    )
    assert execute(ferry.database, statement, key=wrong) == 1
    with pytest.raises(StoreError, match="do not add up"):
        ferry.settle(claimed)
    assert rows(ferry.database, "SELECT state::text FROM delivery") == [("rendered",)]


def test_bundles_survive_being_frozen(batch):
    encrypt = {"type": "zip_aes", "connection": "zip_secret"}
    made = batch(bundle={**BUNDLE, "level": 9, "encrypt": encrypt, "checksum": "sha256"})
    assert made == Batch.model_validate(made.model_dump(mode="json"))
    assert [one.id for one in made.loose_files] == ["loose"]
    assert [one.id for one in made.files_for("drop")] == ["loose", "all"]


CONFIG = """\
name: Acme, daily
recipient: acme
flows: [auto]
schedule: manual
fields: [{to: Zip, from: zip}]
files:
  - {id: a, name: "a_{{ file.part }}.csv", format: {type: csv}, FILE}
  - {id: b, name: "b.csv", format: {type: csv}}
bundles:
  - {id: all, name: all.zip, BUNDLE}
  - {id: more, name: more.zip, files: [b]}
destinations:
  - {id: share, type: folder, path: out, SHARE}
"""


@pytest.mark.parametrize(
    ("file", "bundle", "share", "line", "says"),
    [
        ("", "files: [c]", "", 10, "there is no file 'c'; known: a, b"),
        ("", "files: [a, a]", "", 10, "'a' stands twice"),
        ("", "files: [a, b]", "", 11, "file 'b' is in bundle 'all' already"),
        (
            "split: {bytes: 5KB}",
            "files: [a]",
            "",
            10,
            "divided by bytes, which cannot be done inside a zip file",
        ),
        ("checksum: sha256", "files: [a]", "", 10, "has a checksum of its own"),
        ("", "files: []", "", 10, "files"),
        ("", 'files: [a], name: "{{ file.nmae }}"', "", 10, "name"),
        (
            "",
            "files: [a], encrypt: {type: xlsx_password, connection: x}",
            "",
            10,
            "is for files of type xlsx",
        ),
        ("", "files: [a]", "files: [a]", 13, "file 'a' is sent in bundle 'all'; name that"),
        ("", "files: [a]", "max_rows: 5", 13, "goes whole and cannot be divided"),
        ("", "files: [a]", "segments: [CA]", 13, "goes whole and cannot be divided"),
    ],
)
def test_a_bundle_that_cannot_be_meant_is_told_with_file_and_line(  # noqa: PLR0913, PLR0917  (one line of the table)
    tmp_path, monkeypatch, file, bundle, share, line, says
):
    config = tmp_path / "config"
    monkeypatch.setenv("LEADFERRY_CONFIG", str(config))
    for one in ("batches", "recipients"):
        (config / one).mkdir(parents=True)
    (config / "recipients/acme.yaml").write_text("name: Acme\n")
    text = CONFIG.replace("FILE", file).replace("BUNDLE", bundle).replace("SHARE", share)
    if "name:" in bundle:
        text = text.replace("name: all.zip, ", "")
    (config / "batches/acme.yaml").write_text(text)
    with pytest.raises(BatchFileError) as refused:
        load_batch("acme", config=config)
    assert says in str(refused.value)
    assert f"config/batches/acme.yaml:{line}:" in str(refused.value)

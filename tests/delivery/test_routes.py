"""What each destination gets: its own parts, its own segments, its own columns, and a manifest of just that."""

import csv
import json

import pytest

from batches import add_leads, folder, make_batch, rows
from ferry import email, messages
from leadferry.errors import RenderError
from leadferry.states import DeliveryState

STATES = ["CA", "TX", "NY"]
FIELDS = [{"to": "Lead", "from": "id"}, {"to": "State", "from": "state"}, {"to": "Email", "from": "email"}]


def records(path):
    with path.open(newline="") as text:
        return list(csv.DictReader(text))


def leads_in(path):
    return {one.name: len(records(one)) for one in sorted(path.iterdir()) if one.suffix == ".csv"}


@pytest.fixture
def carry(ferry, tmp_path):
    """Carry leads of three states in turn; destinations are given by their folder's name."""

    def carry(file, *, count=10, keys=(), **destinations):
        for number in range(count):
            add_leads(ferry.database, fields={"state": STATES[number % 3]})
        batch = make_batch(
            fields=FIELDS,
            files=[{"id": "leads", "format": {"type": "csv"}, **file}],
            destinations=[folder(tmp_path / name, id=name, **more) for name, more in destinations.items()],
            **dict(keys),
        )
        return ferry.carry(batch)

    return carry


@pytest.mark.req("R108")
def test_each_destination_gets_parts_of_the_size_it_takes_and_the_counts_add_up(carry, tmp_path, ferry):
    settled = carry({"name": "{{ file.part }}_{{ lead.count }}.csv"}, small={"max_rows": 4}, big={})
    assert (settled.state, settled.included) == (DeliveryState.DELIVERED, 10)
    assert leads_in(tmp_path / "small") == {"1_10.csv": 4, "2_10.csv": 4, "3_10.csv": 2}
    assert leads_in(tmp_path / "big") == {"1_10.csv": 10}
    assert rows(ferry.database, "SELECT key, count(*), sum(rows) FROM file GROUP BY key ORDER BY key") == [
        ("leads", 1, 10),
        ("leads.small", 3, 10),
    ]


@pytest.mark.req("R108")
def test_a_limit_in_bytes_holds_where_it_was_set_and_only_there(carry, tmp_path):
    carry({"name": "{{ file.part }}.csv"}, count=60, small={"max_bytes": "1KB"}, big={})
    sizes = [one.stat().st_size for one in (tmp_path / "small").iterdir()]
    assert max(sizes) <= 1000
    assert len(sizes) > 1
    assert [one.stat().st_size > 1000 for one in (tmp_path / "big").iterdir()] == [True]
    assert sum(leads_in(tmp_path / "small").values()) == 60


@pytest.mark.req("R108", "F15")
def test_each_manifest_and_checksum_tells_of_what_comes_with_it(carry, tmp_path):
    file = {"name": "{{ file.part }}.csv", "checksum": "sha256"}
    keys = {"manifest": {"name": "m.json"}, "done_marker": {"name": "all.done"}}
    carry(file, keys=keys, small={"max_rows": 6}, big={}, twin={})
    for name, files in {"small": ["1.csv", "2.csv"], "big": ["1.csv"], "twin": ["1.csv"]}.items():
        listed = json.loads((tmp_path / name / "m.json").read_text())
        assert [one["name"] for one in listed["files"]] == files
        assert {(one["file"], one["parts"]) for one in listed["files"]} == {("leads", len(files))}
        assert listed["leads"] == 10
        expected = {*files, *(f"{one}.sha256" for one in files), "m.json", "all.done"}
        assert {one.name for one in (tmp_path / name).iterdir()} == expected
    assert (tmp_path / "big/m.json").read_bytes() == (tmp_path / "twin/m.json").read_bytes()


SEGMENTED = {"name": "{{ file.segment }}.csv", "segment": {"by": "state", "values": ["CA", "TX"]}}


@pytest.mark.req("F18", "R129")
def test_a_destination_gets_its_segments_and_nothing_of_the_others(carry, tmp_path):
    keys = {"manifest": {"name": "m.json"}}
    settled = carry(
        SEGMENTED, keys=keys, west={"segments": ["CA"]}, south={"segments": ["TX", "other"]}, office={}
    )
    assert settled.state is DeliveryState.DELIVERED
    assert leads_in(tmp_path / "west") == {"CA.csv": 4}
    assert leads_in(tmp_path / "south") == {"TX.csv": 3, "other.csv": 3}
    assert leads_in(tmp_path / "office") == {"CA.csv": 4, "TX.csv": 3, "other.csv": 3}
    manifest = (tmp_path / "west/m.json").read_text()
    assert json.loads(manifest)["leads"] == 4
    assert "TX" not in manifest


@pytest.mark.req("F18")
def test_a_destination_none_of_whose_segments_has_leads_gets_nothing_at_all(carry, tmp_path):
    keys = {"manifest": {"name": "m.json"}, "done_marker": {"name": "all.done"}}
    settled = carry(
        SEGMENTED, keys=keys, count=1, west={"segments": ["CA"]}, rest={"segments": ["TX", "other"]}
    )
    assert settled.state is DeliveryState.DELIVERED
    assert leads_in(tmp_path / "west") == {"CA.csv": 1}
    assert not (tmp_path / "rest").exists()


def test_without_any_lead_every_destination_gets_the_file_with_the_header(carry, tmp_path):
    settled = carry(
        SEGMENTED,
        keys={"empty": "header_only"},
        count=0,
        west={"segments": ["CA"]},
        rest={"segments": ["TX", "other"]},
    )
    assert settled.state is DeliveryState.DELIVERED
    for name in ("west", "rest"):
        (only,) = (tmp_path / name).iterdir()
        assert only.read_bytes() == b"Lead,State,Email\r\n"


@pytest.mark.req("R129")
def test_two_recipients_of_one_batch_get_different_columns_leads_and_texts(ferry, mail):
    for number in range(4):
        add_leads(ferry.database, fields={"state": STATES[number % 2]})
    segment = {"by": "state", "values": ["CA", "TX"], "unknown": "withhold"}
    file = {"format": {"type": "csv"}, "segment": segment}
    batch = make_batch(
        fields=FIELDS,
        files=[
            {"id": "full", "name": "full_{{ file.segment }}.csv", **file},
            {"id": "short", "name": "short_{{ file.segment }}.csv", "fields": ["Email", "Lead"], **file},
        ],
        destinations=[
            email("anna@acme.example", id="anna", files=["full"], subject="For Anna", body="All fields."),
            email(
                "ben@acme.example",
                id="ben",
                files=["short"],
                segments=["TX"],
                subject="{{ lead.count }} for Ben",
                body="Two fields.",
            ),
            email("office@acme.example", id="office", files=["short"], segments=["CA"]),
        ],
    )
    assert ferry.carry(batch).state is DeliveryState.DELIVERED
    told = {to: (subject, text.strip()) for to, subject, text in messages(mail)}
    assert told["anna@acme.example"] == ("For Anna", "All fields.")
    assert told["ben@acme.example"] == ("4 for Ben", "Two fields.")
    assert attachments(mail) == {
        "anna@acme.example": {
            "full_CA.csv": ["Lead,State,Email", 2],
            "full_TX.csv": ["Lead,State,Email", 2],
        },
        "ben@acme.example": {"short_TX.csv": ["Email,Lead", 2]},
        "office@acme.example": {"short_CA.csv": ["Email,Lead", 2]},
    }


def attachments(mail):
    """The names of the attached files by recipient, each with its labels and number of leads."""
    from email import message_from_bytes, policy

    found = {}
    for path in mail.inbox.messages():
        message = message_from_bytes(path.read_bytes(), policy=policy.default)
        lines = {
            one.get_filename(): one.get_payload(decode=True).decode().splitlines()
            for one in message.iter_attachments()
        }
        found[message["X-Envelope-To"]] = {
            name: [text[0], len(text) - 1] for name, text in sorted(lines.items())
        }
    return found


@pytest.mark.req("R129")
def test_a_file_has_its_own_fields_in_its_own_order_and_can_add_up_others(carry, tmp_path):
    control = {"trailer": "{{ sum.Lead > 0 }}", "sums": ["Lead"]}
    carry({"name": "a.csv", "fields": ["Email", "State"], "control": control}, count=1, out={})
    assert (tmp_path / "out/a.csv").read_text().splitlines()[0] == "Email,State"
    assert (tmp_path / "out/a.csv").read_text().splitlines()[2] == "True"


CLASHING = {"name": "{{ 'a' if file.part < 9 else 'b' }}.csv"}


def test_names_may_be_the_same_at_different_destinations(carry, tmp_path):
    carry(CLASHING, count=3, small={"max_rows": 9}, big={})
    assert leads_in(tmp_path / "small") == leads_in(tmp_path / "big") == {"a.csv": 3}


def test_names_that_meet_at_one_destination_fail_before_anything_is_sent(carry, tmp_path):
    with pytest.raises(RenderError, match="would have the same name"):
        carry(CLASHING, count=3, small={"max_rows": 1}, big={})
    assert not (tmp_path / "big").exists()

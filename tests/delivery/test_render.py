"""The second step: files complete, hashed, the same each time, and what cannot be mapped is kept back."""

import csv
import hashlib
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text

from batches import add_leads, carried, folder, kept_back, make_batch
from leadferry.archive import Archive
from leadferry.batch.load import load_batch
from leadferry.delivery.extract import Trigger, extract
from leadferry.delivery.render import render
from leadferry.errors import StoreError
from leadferry.schedule import departures
from leadferry.states import DeliveryState
from leadferry.store.database import Database

ODD = [
    'say "hi"',
    "two\nlines",
    "cr\r\nlf",
    "a,b;c\td",
    "back\\slash",
    "50 % off %s %(x)s",
    "日本 🚢 é",
    " padded ",
    "\\.",
]


def archived(ferry, file):
    return Path(str(ferry.archive.root)) / file.archive_key


def test_the_file_holds_the_included_leads_in_order_and_is_what_the_ledger_says(ferry):
    leads = add_leads(ferry.database, 5)
    claimed = ferry.extract(make_batch(select={"order": "newest"}))
    (file,) = ferry.render(claimed)
    content = archived(ferry, file).read_bytes()
    assert (file.sha256, file.size, file.rows) == (hashlib.sha256(content).hexdigest(), len(content), 5)
    assert file.name == "acme_1.csv"
    assert [row["Lead"] for row in csv.DictReader(content.decode().splitlines())] == [
        str(one) for one in leads[::-1]
    ]


def test_rendering_twice_returns_the_same_file_and_renders_nothing(ferry):
    add_leads(ferry.database, 5)
    claimed = ferry.extract(make_batch())
    first = ferry.render(claimed)
    archived(ferry, first[0]).unlink()
    assert ferry.render(claimed) == first
    assert not archived(ferry, first[0]).exists()


@pytest.mark.parametrize("order", ["oldest", "newest", "random"])
def test_i3_a_delivery_that_is_rendered_again_has_the_same_bytes(ferry, tmp_path, order):
    """As after a crash before the ledger knew of the file: the whole step is done again."""
    add_leads(ferry.database, 50)
    claimed = ferry.extract(make_batch(select={"order": order}))
    copy = _copy_of_the_store(ferry.database)
    (one,) = ferry.render(claimed)
    (other,) = render(copy, Archive(str(tmp_path / "another archive")), claimed.delivery_id)
    assert one.sha256 == other.sha256


def test_odd_text_arrives_as_it_was(ferry):
    for value in ODD:
        add_leads(ferry.database, fields={"note": value})
    claimed = ferry.extract(make_batch(fields=[{"to": "Note", "from": "note"}, {"to": "Lead", "from": "id"}]))
    (file,) = ferry.render(claimed)
    with archived(ferry, file).open(newline="", encoding="utf-8") as stored:
        found = {row["Note"] for row in csv.DictReader(stored)}
    assert found == set(ODD)


def test_several_files_are_rendered_from_the_same_leads(ferry):
    add_leads(ferry.database, 3)
    files = [
        {"id": kind, "name": f"leads.{kind}", "format": {"type": kind}} for kind in ("csv", "json", "ndjson")
    ]
    stored = ferry.render(ferry.extract(make_batch(files=files)))
    assert [(one.key, one.rows) for one in stored] == [("csv", 3), ("json", 3), ("ndjson", 3)]


def test_leads_that_a_field_cannot_handle_are_withheld_before_a_byte_is_written(ferry):
    good = add_leads(ferry.database, fields={"phone": "5046218927"})
    bad = add_leads(ferry.database, fields={"phone": "none"})
    phone = {
        "to": "Phone",
        "from": "phone",
        "transform": [{"phone": {"region": "US"}}],
        "on_error": "withhold",
    }
    claimed = ferry.extract(make_batch(fields=[phone, {"to": "Lead", "from": "id"}]))
    (file,) = ferry.render(claimed)
    found = ferry.delivery(claimed)
    assert (found.included, found.withheld, file.rows) == (1, 1, 1)
    assert carried(ferry.database, claimed.delivery_id) == good
    assert list(kept_back(ferry.database, claimed.delivery_id)) == bad


def test_i3_bytes_that_changed_in_the_archive_are_not_sent(ferry, tmp_path):
    add_leads(ferry.database, 3)
    claimed = ferry.extract(make_batch(destinations=[folder(tmp_path / "inbox")]))
    (file,) = ferry.render(claimed)
    archived(ferry, file).write_bytes(b"tampered with")
    with pytest.raises(StoreError, match="has changed since it was rendered; it is not sent"):
        ferry.deliver(claimed, "drop")
    assert not list((tmp_path / "inbox").glob("*"))


def test_a_file_that_is_gone_from_the_archive_is_told_and_the_leads_go_back(ferry, tmp_path):
    add_leads(ferry.database, 3)
    claimed = ferry.rendered(make_batch(destinations=[folder(tmp_path / "inbox")]))
    shutil.rmtree(str(ferry.archive.root))
    with pytest.raises(StoreError, match="has no file acme/1/"):
        ferry.deliver(claimed, "drop")
    assert ferry.settle(claimed).returned == 3


def test_nothing_unfinished_stays_in_the_archive(ferry):
    add_leads(ferry.database, 3)
    (file,) = ferry.render(ferry.extract(make_batch()))
    found = [path for path in Path(str(ferry.archive.root)).rglob("*") if path.is_file()]
    assert found == [archived(ferry, file)]


def _copy_of_the_store(database):
    """A second store with the same rows; the first one's connections are closed between transactions."""
    url = database.engine.url
    name = f"{url.database}_copy"
    maintenance = Database(url.set(database="postgres").render_as_string(hide_password=False))
    with maintenance.session() as connection:
        connection.execute(text(f'DROP DATABASE IF EXISTS "{name}"'))
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{url.database}"'))
    return Database(url.set(database=name).render_as_string(hide_password=False))


@pytest.mark.req("C04")
def test_a_delivery_of_which_every_lead_is_withheld_is_skipped_and_sends_nothing(ferry, tmp_path):
    add_leads(ferry.database, 3)
    fields = [
        {"to": "N", "from": "email", "transform": [{"number": {"decimals": 1}}], "on_error": "withhold"}
    ]
    claimed = ferry.extract(make_batch(fields=fields, destinations=[folder(tmp_path / "inbox")]))
    assert ferry.render(claimed) == []
    settled = ferry.settle(claimed)
    assert (settled.state, settled.withheld, settled.reason) == (
        DeliveryState.SKIPPED,
        3,
        "every lead was withheld",
    )
    assert not (tmp_path / "inbox").exists()


@pytest.mark.req("C20", "C06")
@pytest.mark.parametrize(
    ("zone", "day"), [("America/New_York", "2026-01-30"), ("UTC", "2026-01-31"), ("Asia/Tokyo", "2026-01-31")]
)
def test_a_files_name_has_the_day_on_which_it_departs_at_the_recipients(ferry, tmp_path, zone, day):
    """Ten at night in New York is the next day in UTC."""
    add_leads(ferry.database, 2)
    named = {"name": "{{ batch.id }}_{{ delivery.date }}_{{ lead.count }}.csv", "format": {"type": "csv"}}
    batch = make_batch(timezone=zone, files=[named], destinations=[folder(tmp_path / "inbox")])
    claimed = extract(
        ferry.database, batch, Trigger(run_id="run-1", departs_at=datetime(2026, 1, 31, 3, 0, tzinfo=UTC))
    )
    ferry.render(claimed)
    ferry.deliver(claimed, "drop")
    assert [path.name for path in (tmp_path / "inbox").iterdir()] == [f"acme_{day}_2.csv"]


@pytest.mark.req("V65")
@pytest.mark.parametrize(
    ("recipient", "calendar", "departs", "name"),
    [
        # Each at nine of its own day, on its own first working day of the year, in its own words.
        ("timezone: Asia/Tokyo\nlocale: ja_JP", "JP", "2026-01-05T00:00:00+00:00", "5 1月 2026"),
        ("timezone: Europe/Paris\nlocale: fr_FR", "FR", "2026-01-02T08:00:00+00:00", "2 janvier 2026"),
        ("timezone: America/New_York", "US", "2026-01-02T14:00:00+00:00", "2 January 2026"),
    ],
)
def test_a_recipients_zone_holidays_and_language_work_together(  # noqa: PLR0913, PLR0917  (the parameters)
    ferry, tmp_path, monkeypatch, recipient, calendar, departs, name
):
    monkeypatch.setattr("leadferry.batch.calendars.today", lambda: date(2025, 12, 31))
    config = tmp_path / "config"
    for part in ("batches", "recipients", "calendars"):
        (config / part).mkdir(parents=True)
    days = "  - {dates: ['01-02', '01-03'], name: Bank holiday}\n" if calendar == "JP" else ""
    (config / "calendars" / "local.yaml").write_text(
        f"name: Local\nclosed:\n  - {{country: {calendar}}}\n{days}"
    )
    (config / "recipients" / "buyer.yaml").write_text(f"name: Buyer\n{recipient}\n")
    (config / "batches" / "acme.yaml").write_text(
        "name: Acme\nrecipient: buyer\nflows: [auto]\n"
        "schedule: {at: ['09:00'], on: business_days, calendar: local, on_closed_day: skip}\n"
        "fields: [{to: Received, from: received_at, transform: [{date: '%-d %B %Y'}]}]\n"
        "files: [{name: 'leads_{{ delivery.date }}.csv', format: {type: csv}}]\n"
        f"destinations: [{{id: drop, type: folder, path: '{tmp_path / 'inbox'}'}}]\n"
    )
    batch = load_batch("acme", config=config)
    first = next(
        departures(batch.schedule, timezone=batch.timezone, after=datetime(2025, 12, 31, 20, tzinfo=UTC))
    )
    assert first.utc.isoformat() == departs
    add_leads(ferry.database, 1, received_at=first.utc - timedelta(minutes=5))
    claimed = extract(ferry.database, batch, Trigger(run_id="run-1", departs_at=first.utc))
    (file,) = ferry.render(claimed)
    assert file.name == f"leads_{first.utc.astimezone(ZoneInfo(batch.timezone)):%Y-%m-%d}.csv"
    assert archived(ferry, file).read_text("utf-8").splitlines()[1].strip('"') == name

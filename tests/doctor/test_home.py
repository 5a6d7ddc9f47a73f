"""What all batches share: the store, its clock, the archive."""

from datetime import UTC, datetime, timedelta

import pytest

from batches import execute
from leadferry.archive import Archive
from leadferry.doctor.finding import Stage, Verdict
from leadferry.doctor.home import examine_archive, examine_home, examine_zones
from leadferry.errors import StoreError
from leadferry.store.database import Database
from leadferry.zones import time_zone


def home(store, folder, *, ahead=timedelta(0)):
    return examine_home(
        store, Archive(str(folder / "archive")), pools=[], clock=lambda: datetime.now(UTC) + ahead
    )


def test_a_store_that_is_up_to_date_is_well(database, tmp_path):
    found = home(lambda: database, tmp_path)

    assert found.told(Stage.STORE).verdict is Verdict.OK
    assert found.told(Stage.CLOCK).verdict is Verdict.OK


def test_a_store_without_tables_says_how_to_make_them(postgres, tmp_path):
    postgres.ensure_database("store_without_tables")
    found = home(lambda: Database(postgres.url("store_without_tables")), tmp_path)
    postgres.drop_database("store_without_tables")

    assert found.told(Stage.STORE).verdict is Verdict.FAILED
    assert "leadferry db upgrade" in found.told(Stage.STORE).remedy


def test_a_store_of_another_version_is_told(database, tmp_path):
    execute(database, "UPDATE alembic_version SET version_num = '0000'")

    told = home(lambda: database, tmp_path).told(Stage.STORE)

    assert (told.verdict, "0000" in told.what) == (Verdict.FAILED, True)


def test_a_store_that_is_not_there_is_told_and_the_rest_is_examined_all_the_same(tmp_path):
    found = home(lambda: Database("postgresql://nobody@/none?host=/nowhere"), tmp_path)

    assert found.told(Stage.STORE).verdict is Verdict.FAILED
    assert found.told(Stage.CLOCK).verdict is Verdict.NOT_REACHED
    assert found.told(Stage.ARCHIVE).verdict is Verdict.OK


def test_a_connection_that_is_missing_is_told(tmp_path):
    def missing():
        raise StoreError("There is no Airflow connection 'leadferry'", hint="Set it")

    assert home(missing, tmp_path).told(Stage.STORE).remedy == "Set it"


@pytest.mark.parametrize("ahead", [timedelta(minutes=2), timedelta(minutes=-2)])
def test_clocks_that_disagree_are_told(database, tmp_path, ahead):
    told = home(lambda: database, tmp_path, ahead=ahead).told(Stage.CLOCK)

    assert told.verdict is Verdict.FAILED
    assert "NTP" in told.remedy


def test_the_archive_is_written_read_and_left_as_it_was(tmp_path):
    found = examine_archive(Archive(str(tmp_path)))

    assert found.verdict is Verdict.OK
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_archive_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("no folder")

    found = examine_archive(Archive(str(tmp_path / "file")))

    assert found.verdict is Verdict.FAILED
    assert "LEADFERRY_ARCHIVE" in found.remedy


def test_an_archive_in_a_store_without_its_driver_is_told():
    found = examine_archive(Archive("gs://no-such-bucket/archive"))

    assert found.verdict is Verdict.FAILED
    assert "LEADFERRY_ARCHIVE" in found.remedy


def test_zones_that_the_store_knows_alike_are_well_and_others_are_told(database, monkeypatch):
    """A year of days is compared; here the rules of two zones are swapped, as after a law that one side has not heard of."""
    now = datetime(2026, 2, 1, 9, 30, tzinfo=UTC)
    zones = ["America/New_York", "Europe/Berlin"]
    assert examine_zones(database, zones, now=now).verdict is Verdict.OK

    law = {"America/New_York": "America/Denver", "Europe/Berlin": "Europe/Berlin"}
    monkeypatch.setattr("leadferry.doctor.home.time_zone", lambda name: time_zone(law[name]))
    told = examine_zones(database, zones, now=now)

    assert told.verdict is Verdict.WARNING
    assert "America/New_York differ" in told.what
    assert "2026-02-01" in told.what
    assert "tzdata" in told.remedy

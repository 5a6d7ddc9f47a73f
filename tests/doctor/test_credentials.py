"""The age of credentials: seen by a fingerprint, never by the secret."""

from datetime import UTC, datetime, timedelta

import pytest

from batches import rows
from leadferry.doctor import credentials
from leadferry.doctor.finding import Verdict

DAY = timedelta(days=1)
START = datetime(2026, 1, 1, 6, 0, tzinfo=UTC)


@pytest.fixture
def age(database):
    def age(*, now):
        return credentials.age(database, "buyer", kind="sftp", now=now)

    return age


@pytest.mark.req("R140")
def test_credentials_that_are_used_too_long_are_a_warning(age, connection):
    connection("buyer", login="ferry", password="correct horse")

    first, later, too_late = (age(now=START + days * DAY) for days in (0, 90, 91))

    assert (first.verdict, later.verdict) == (Verdict.OK, Verdict.OK)
    assert too_late.verdict is Verdict.WARNING
    assert "since 2026-01-01 (91 days)" in too_late.what
    assert "'buyer'" in too_late.remedy


@pytest.mark.req("R140")
@pytest.mark.parametrize(
    "changed",
    [
        {"password": "new horse"},
        {"login": "other"},
        {"extra": {"private_key": "another"}},
    ],
    ids=["password", "login", "key"],
)
def test_changed_credentials_begin_anew(age, connection, changed):
    known = {"login": "ferry", "password": "correct horse", "extra": {"private_key": "one"}}
    connection("buyer", **known)
    age(now=START)
    connection("buyer", **{**known, **changed})

    age(now=START + 80 * DAY)
    found = age(now=START + 100 * DAY)

    assert found.verdict is Verdict.OK
    assert "(20 days)" in found.what


def test_another_host_or_timeout_changes_no_credentials(age, connection):
    connection("buyer", login="ferry", password="correct horse", host="a.example")
    age(now=START)
    connection("buyer", login="ferry", password="correct horse", host="b.example", extra={"host_key": "k"})

    assert "(5 days)" in age(now=START + 5 * DAY).what


@pytest.mark.req("R140")
def test_a_key_file_that_was_replaced_begins_anew(age, connection, tmp_path):
    key = tmp_path / "key"
    key.write_text("one")
    connection("buyer", login="ferry", extra={"key_file": str(key)})
    age(now=START)
    key.write_text("two")

    assert "(0 days)" in age(now=START + DAY).what


def test_a_connection_without_credentials_has_no_age(age, connection):
    connection("buyer", login="ferry")

    assert age(now=START).verdict is Verdict.NOT_APPLICABLE


def test_the_store_keeps_no_secret(age, connection, database):
    connection("buyer", login="ferry", password="correct horse")
    connection("other", login="ferry", password="correct horse")
    age(now=START)
    credentials.age(database, "other", kind="sftp", now=START)

    kept = rows(database, "SELECT connection, fingerprint, salt FROM credential ORDER BY 1")

    assert [name for name, _, _ in kept] == ["buyer", "other"]
    assert b"horse" not in b"".join(bytes(part) for _, *both in kept for part in both)
    # The same password in two connections is not seen to be the same.
    assert kept[0][1] != kept[1][1]

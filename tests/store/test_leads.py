"""Streaming leads out of the store: every text as it is, in order, in blocks."""

import json

import psycopg
import pytest

from batches import add_leads, carried, claim
from leadferry.errors import StoreUnavailableError
from leadferry.mapping.sources import source
from leadferry.store.leads import read_leads
from leadferry.store.tables import lead

ODD = [
    'say "hi"',
    '"',
    '""',
    "",
    None,
    " ",
    "two\nlines",
    "carriage\rreturn",
    "both\r\n",
    "\n",
    "a,b;c\td",
    "back\\slash",
    "\\.",
    "\\N",
    "NULL",
    "null",
    "50 % off",
    "%s %(name)s %%",
    ":name {{ lead }} $1",
    "it's",
    "日本 🚢 é e\u0301",
    "\u200b\ufeff\u00a0",
    "\x01\x1f\x7f",
    "00123",
    "1e5",
    "true",
    "2026-01-31",
    "x" * 300_000,
]


def columns(*names):
    return {name: source(name, lead) for name in names}


@pytest.fixture
def odd(database, store_url):
    """A delivery of one lead for each odd text, and the texts as psycopg reads them."""
    with psycopg.connect(store_url) as connection, connection.cursor() as cursor:
        rows = [(json.dumps({"note": value, 'odd "name" 50%': value}),) for value in ODD]
        cursor.executemany("INSERT INTO leadferry.lead (flow, fields) VALUES ('auto', %s)", rows)
        connection.commit()
        direct = cursor.execute(
            "SELECT id::text, fields->>'note' FROM leadferry.lead ORDER BY lead.id"
        ).fetchall()
    return claim(database).delivery_id, direct


@pytest.mark.parametrize("block_bytes", [1, 100, 8 * 1024 * 1024])
def test_every_text_is_read_as_psycopg_reads_it(database, odd, block_bytes):
    delivery_id, direct = odd
    frames = read_leads(database, delivery_id, columns("id", "note"), block_bytes=block_bytes)
    assert [row for frame in frames for row in frame.rows()] == direct
    assert [note for _, note in direct] == ODD


def test_a_field_may_have_any_name(database, odd):
    delivery_id, _ = odd
    name = 'odd "name" 50%'
    frames = read_leads(database, delivery_id, columns("id", name))
    assert [row[name] for frame in frames for row in frame.rows(named=True)] == ODD


def test_a_single_column_keeps_its_nulls_and_empty_texts(database, odd):
    delivery_id, _ = odd
    frames = read_leads(database, delivery_id, columns("note"))
    assert [value for frame in frames for (value,) in frame.rows()] == ODD


def test_blocks_hold_about_as_much_as_asked(database):
    add_leads(database, 500, fields={"note": "x" * 100})
    delivery_id = claim(database).delivery_id
    frames = list(read_leads(database, delivery_id, columns("id", "note"), block_bytes=10_000))
    assert sum(frame.height for frame in frames) == 500
    assert max(frame.height for frame in frames) <= 100


def test_a_delivery_without_leads_yields_nothing(database):
    delivery_id = claim(database, departs_empty=True).delivery_id
    assert list(read_leads(database, delivery_id, columns("id"))) == []


def test_leads_that_came_later_are_not_read(database):
    add_leads(database, 2)
    delivery_id = claim(database).delivery_id
    add_leads(database, 2)
    claim(database, "run-2")
    assert sum(frame.height for frame in read_leads(database, delivery_id, columns("id"))) == 2


def test_a_cut_while_reading_is_an_error_that_may_be_tried_again_never_a_short_result(database, store_url):
    add_leads(database, 20_000, fields={"note": "x" * 1000})
    delivery_id = claim(database).delivery_id
    frames = read_leads(database, delivery_id, columns("id", "note"), block_bytes=10_000)
    next(frames)
    with psycopg.connect(store_url, autocommit=True, application_name="the test") as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'leadferry'"
        )
    with pytest.raises(StoreUnavailableError):
        list(frames)


@pytest.mark.parametrize("order", ["oldest", "newest"])
@pytest.mark.parametrize("ids_follow_time", [True, False])
def test_the_order_is_that_of_time_whether_or_not_the_ids_follow_it(database, order, ids_follow_time):
    """Where they do, nothing is sorted; the file must not show it."""
    days = range(1, 8) if ids_follow_time else [3, 7, 1, 5, 2, 6, 4]
    ids = {}
    for day in days:
        (ids[day],) = add_leads(database, received_at=f"2026-01-0{day}T12:00:00Z")
    claimed = claim(database, order=order)
    expected = [ids[day] for day in range(1, 8)]
    assert carried(database, claimed.delivery_id) == (expected if order == "oldest" else expected[::-1])

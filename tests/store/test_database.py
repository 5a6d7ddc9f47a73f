from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from leadferry.errors import StoreError, StoreUnavailableError
from leadferry.states import MOVES
from leadferry.store.database import Database
from leadferry.store.tables import metadata

THINGS = {"DeliveryState": "delivery", "DispatchState": "dispatch", "RequestState": "request"}
BEYOND_CORE = {
    "audit_at",
    "audit_of_actor",
    "audit_of_object",
    "delivery_departed",
    "delivery_of_batch",
    "delivery_of_config",
    "file_name",
    "lead_external_id",
    "lead_received",
    "lot_waiting",
    "delivery_of_run",
    "delivery_open",
    "delivery_needs_attention",
    "dispatch_in_doubt",
    "suspension_active",
    "response_final",
    "delivery_in_time",
    "delivery_held",
    "delivery_in_order",
    "delivery_by_day",
    "file_by_age",
    "file_by_archive_key",
    "incident_open",
    "incident_untold",
    "retirement_undone",
    "lead_version_sent",
    "lead_edit_of_delivery",
    "redelivery_of",
}
"""Indexes that only the migration knows, because no query is built from them."""


def test_the_tables_are_what_the_migrations_make(database):
    with database.transaction() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    unexpected = [
        difference
        for difference in differences
        if not (difference[0] == "remove_index" and difference[1].name in BEYOND_CORE)
        and not (difference[0] == "remove_table" and difference[1].name == "alembic_version")
    ]
    assert unexpected == []


def test_the_database_allows_exactly_the_moves_of_the_state_table(database):
    with database.transaction() as connection:
        stored = {
            tuple(row) for row in connection.execute(text("SELECT thing, source, target FROM state_move"))
        }
    expected = {
        (THINGS[kind.__name__], source.value, target.value)
        for kind, moves in MOVES.items()
        for source, targets in moves.items()
        for target in targets
    }
    assert expected == stored


def test_upgrading_twice_changes_nothing(database):
    database.upgrade()


def test_a_database_that_is_not_there_is_unavailable(tmp_path):
    with pytest.raises(StoreUnavailableError), Database(f"postgresql://u@/x?host={tmp_path}").transaction():
        pass


def test_an_error_never_quotes_the_data(database):
    with pytest.raises(StoreError) as caught, database.transaction() as connection:
        connection.execute(text("SELECT CAST(:value AS integer)"), {"value": "canary-4711"})
    assert "canary-4711" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_lead_is_never_deleted(database):
    with database.transaction() as connection:
        connection.execute(text("INSERT INTO lead (flow, fields) VALUES ('f', '{}')"))
    with (
        pytest.raises(StoreError, match="rows of lead are never deleted"),
        database.transaction() as connection,
    ):
        connection.execute(text("DELETE FROM lead"))


def test_any_client_may_insert_leads_whatever_its_search_path(database, store_url):
    import psycopg

    with psycopg.connect(store_url) as client:
        client.execute("INSERT INTO leadferry.lead (flow, fields) VALUES ('auto', '{}')")
    with database.transaction() as connection:
        assert connection.scalar(text("SELECT count(*) FROM arrival")) == 1

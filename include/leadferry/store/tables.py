"""The tables of the lead store, for building queries.

The migrations make them; a test compares the two.
The names are the words of the glossary. `batch.no` is a short surrogate that keeps the big tables narrow.
"""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB

from leadferry.states import Answer, DeliveryKind, DeliveryState, DispatchState, FileKind, RequestState

metadata = MetaData()


def _enum(states: type[StrEnum], name: str) -> Enum:
    return Enum(states, name=name, values_callable=lambda kind: [state.value for state in kind])


def _moment(name: str, *, nullable: bool = False, now: bool = False) -> Column[object]:
    return Column(
        name, DateTime(timezone=True), nullable=nullable, server_default=func.now() if now else None
    )


lead_import = Table(
    "lead_import",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("flow", Text, nullable=False),
    Column("file_name", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("rejected", Integer, nullable=False),
    Column("duplicates", Integer, nullable=False, server_default="0"),
    _moment("imported_at", now=True),
    UniqueConstraint("flow", "sha256"),
)
"""One imported file of leads; its hash keeps the same file from being loaded twice."""

lead = Table(
    "lead",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("flow", Text, nullable=False),
    Column("external_id", Text),
    _moment("received_at", now=True),
    Column("fields", JSONB, nullable=False),
    Column("import_id", BigInteger, ForeignKey("lead_import.id")),
)
"""One record captured by a flow; never deleted."""

arrival = Table(
    "arrival",
    metadata,
    Column("lead_id", BigInteger, nullable=False),
    Column("flow", Text, nullable=False),
    _moment("received_at"),
)
"""Leads that no queue has been offered yet; filled by a trigger on `lead`, emptied by routing."""

batch = Table(
    "batch",
    metadata,
    Column("no", Integer, Identity(always=True), primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("last_number", Integer, nullable=False, server_default="0"),
    _moment("created_at", now=True),
)

subscription = Table(
    "subscription",
    metadata,
    Column("batch_no", Integer, ForeignKey("batch.no"), primary_key=True),
    Column("flow", Text, primary_key=True),
    _moment("received_from", nullable=True),
    _moment("since", now=True),
)
"""Which batch collects the leads of which flow; its queue began with those received from then on."""

batch_config = Table(
    "batch_config",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("batch_no", Integer, ForeignKey("batch.no"), nullable=False),
    Column("sha256", Text, nullable=False),
    Column("config", JSONB, nullable=False),
    _moment("first_used_at", now=True),
    UniqueConstraint("batch_no", "sha256"),
)
"""Every version of a batch's effective configuration that ever took leads."""

delivery = Table(
    "delivery",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("batch_no", Integer, ForeignKey("batch.no"), nullable=False),
    Column("config_id", BigInteger, ForeignKey("batch_config.id"), nullable=False),
    Column("number", Integer),
    Column("run_id", Text, nullable=False),
    Column("state", _enum(DeliveryState, "delivery_state"), nullable=False),
    Column("reason", Text),
    Column("on_hold", Boolean, nullable=False, server_default="false"),
    _moment("departs_at"),
    _moment("window_from", nullable=True),
    _moment("window_to"),
    _moment("claimed_at", now=True),
    _moment("settled_at", nullable=True),
    _moment("lease_until"),
    Column("included", Integer, nullable=False, server_default="0"),
    Column("withheld", Integer, nullable=False, server_default="0"),
    Column("lead_order", Text, nullable=False, server_default="oldest"),
    Column("kind", _enum(DeliveryKind, "delivery_kind"), nullable=False, server_default="departure"),
    Column("params", JSONB, nullable=False, server_default="{}"),
    Column("unit_price", Numeric),
    Column("revenue", Numeric),
    Column("left_waiting", Integer, nullable=False, server_default="0"),
    Column("left_reason", Text),
    UniqueConstraint("batch_no", "number"),
)
"""One departure of a batch."""

lot = Table(
    "lot",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("batch_no", Integer, ForeignKey("batch.no"), nullable=False),
    Column("delivery_id", BigInteger, ForeignKey("delivery.id"), index=True),
    _moment("newest_received_at"),
    _moment("created_at", now=True),
    Column("returns", Boolean, nullable=False, server_default="true"),
    Column("returned_from", BigInteger, ForeignKey("delivery.id")),
)
"""Leads of a batch's queue that travel together: waiting without a delivery, claimed with one."""

queue_entry = Table(
    "queue_entry",
    metadata,
    Column("batch_no", Integer, nullable=False),
    Column("lead_id", BigInteger, nullable=False),
    Column("copy", SmallInteger, nullable=False, server_default="0"),
    Column("lot_id", BigInteger, nullable=False, index=True),
    _moment("received_at"),
    PrimaryKeyConstraint("lead_id", "batch_no", "copy"),
)
"""A lead's place in a batch's queue, for good: it waits or belongs to a delivery as its lot does (I1)."""

withheld = Table(
    "withheld",
    metadata,
    Column("delivery_id", BigInteger, primary_key=True, autoincrement=False),
    Column("lead_id", BigInteger, primary_key=True, autoincrement=False),
    Column("reason", Text, nullable=False),
)
"""Leads that a delivery took and kept back: a rule's name, or what a field could not handle."""

lead_stop = Table(
    "lead_stop",
    metadata,
    Column("lead_id", BigInteger, ForeignKey("lead.id"), primary_key=True, autoincrement=False),
    Column("batch_no", Integer, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    _moment("at", now=True),
)
"""Single leads that must not go, to one batch or, with number 0, to any: held until released, or stopped for good."""

lead_price = Table(
    "lead_price",
    metadata,
    Column("delivery_id", BigInteger, primary_key=True, autoincrement=False),
    Column("lead_id", BigInteger, primary_key=True, autoincrement=False),
    Column("price", Numeric, nullable=False),
)
"""What a lead is worth in a delivery, where a cap on revenue reads it from the lead."""

passed_on = Table(
    "passed_on",
    metadata,
    Column("delivery_id", BigInteger, primary_key=True, autoincrement=False),
    Column("lead_id", BigInteger, primary_key=True, autoincrement=False),
    Column("batch_no", Integer, ForeignKey("batch.no"), nullable=False),
)
"""Leads beyond a cap that are for another batch."""

cap_level = Table(
    "cap_level",
    metadata,
    Column("batch_no", Integer, ForeignKey("batch.no"), primary_key=True),
    Column("cap", Text, primary_key=True),
    Column("period_from", DateTime(timezone=True), primary_key=True),
    Column("level", Text, primary_key=True),
    _moment("at", now=True),
)
"""That a cap was nearly or completely used up in a period."""

lead_key = Table(
    "lead_key",
    metadata,
    Column("key", Uuid, primary_key=True),
    Column("batch_no", Integer, primary_key=True, autoincrement=False),
    Column("delivery_id", BigInteger, primary_key=True, autoincrement=False),
    Column("lead_id", BigInteger, primary_key=True, autoincrement=False),
)
"""By what a delivered lead is known again: a hash of a normalised value."""

lead_version = Table(
    "lead_version",
    metadata,
    Column("delivery_id", BigInteger, primary_key=True, autoincrement=False),
    Column("lead_id", BigInteger, primary_key=True, autoincrement=False),
    Column("batch_no", Integer, nullable=False),
    Column("change", Text, nullable=False),
    Column("version", Uuid, nullable=False),
)
"""What a recipient was told of a lead, by a batch that delivers changes."""

lead_key_made = Table(
    "lead_key_made",
    metadata,
    Column("delivery_id", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", Text, primary_key=True),
)
"""Which deliveries' leads are known again by what."""

redelivery = Table(
    "redelivery",
    metadata,
    Column("delivery_id", BigInteger, ForeignKey("delivery.id"), primary_key=True, autoincrement=False),
    Column("destination", Text, nullable=False),
    Column("ways", ARRAY(Text), nullable=False),
    Column("original_id", BigInteger, ForeignKey("delivery.id")),
    Column("file_id", BigInteger),
    Column("mark", Text, nullable=False, server_default=""),
    Column("include_delivered", Boolean, nullable=False),
    Column("skip_rules", Boolean, nullable=False),
    Column("seed", BigInteger),
    Column("reason", Text),
    Column("actor", Text, nullable=False),
)
"""What a delivery by hand was asked to be: where to, of what it is a repetition, by whom and why."""

skipped_rule = Table(
    "skipped_rule",
    metadata,
    Column("delivery_id", BigInteger, primary_key=True, autoincrement=False),
    Column("lead_id", BigInteger, primary_key=True, autoincrement=False),
    Column("rule", Text, nullable=False),
)
"""Which rule a redelivered lead did not meet, where a person said that it goes all the same."""

lead_edit = Table(
    "lead_edit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("lead_id", BigInteger, ForeignKey("lead.id"), nullable=False, index=True),
    Column("delivery_id", BigInteger, ForeignKey("delivery.id")),
    Column("persisted", Boolean, nullable=False),
    Column("before", JSONB, nullable=False),
    Column("changes", JSONB, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    _moment("at", now=True),
)
"""What a person changed of a lead's fields, and what stood there before; for good, or for one delivery."""

views = MetaData()

pending = Table(
    "pending",
    views,
    Column("batch_no", Integer),
    Column("lead_id", BigInteger),
    _moment("received_at"),
)
"""The queue of every batch: only what waits. A view."""

delivery_lead = Table(
    "delivery_lead",
    views,
    Column("delivery_id", BigInteger),
    Column("lead_id", BigInteger),
    Column("batch_no", Integer),
    Column("copy", SmallInteger),
    _moment("received_at"),
    Column("outcome", Text),
    Column("reason", Text),
)
"""What became of each lead that a delivery took: included, withheld, or what the buyer said. A view."""

file = Table(
    "file",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("delivery_id", BigInteger, ForeignKey("delivery.id"), nullable=False),
    Column("kind", _enum(FileKind, "file_kind"), nullable=False, server_default="leads"),
    Column("key", Text, nullable=False),
    Column("part", Integer, nullable=False, server_default="1"),
    Column("name", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("segment", Text, nullable=False, server_default=""),
    Column("members", JSONB, nullable=False, server_default="[]"),
    Column("media_type", Text, nullable=False),
    Column("archive_key", Text, nullable=False),
    _moment("created_at", now=True),
    UniqueConstraint("delivery_id", "kind", "key", "part"),
)
"""Rendered bytes; a row never changes (I3)."""

dispatch = Table(
    "dispatch",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("delivery_id", BigInteger, ForeignKey("delivery.id"), nullable=False, index=True),
    Column("file_id", BigInteger, ForeignKey("file.id"), nullable=False),
    Column("destination", Text, nullable=False),
    Column("way", Text, nullable=False),
    Column("addressee", Text, nullable=False, server_default=""),
    Column("parcel_key", Text, nullable=False),
    Column("sent_as", Text),
    Column("remedy", Text, nullable=False, server_default=""),
    Column("state", _enum(DispatchState, "dispatch_state"), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("receipt", JSONB(none_as_null=True)),
    Column("error_code", Text),
    Column("error", Text),
    _moment("updated_at", now=True),
    UniqueConstraint("file_id", "destination", "addressee"),
)
"""One file on its way to one destination (and one mail recipient).
A destination and its fallbacks are one way, named after the destination that they replace."""

attempt = Table(
    "attempt",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("dispatch_id", BigInteger, ForeignKey("dispatch.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    _moment("started_at", now=True),
    _moment("ended_at", nullable=True),
    Column("outcome", _enum(DispatchState, "dispatch_state")),
    Column("error_code", Text),
    Column("error", Text),
    UniqueConstraint("dispatch_id", "number"),
)
"""One try of a dispatch; without an end when the process died."""

request = Table(
    "request",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("dispatch_id", BigInteger, ForeignKey("dispatch.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("lead_ids", ARRAY(BigInteger), nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("state", _enum(RequestState, "request_state"), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="1"),
    Column("status_code", Integer),
    Column("latency_ms", Integer),
    Column("body", Text),
    Column("error_code", Text),
    _moment("sent_at", now=True),
    _moment("answered_at", nullable=True),
    UniqueConstraint("dispatch_id", "number"),
)
"""One request to a buyer's API: its leads that have no final answer yet, or had none when it was sent last."""

response = Table(
    "response",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("request_id", BigInteger, ForeignKey("request.id"), nullable=False),
    Column("delivery_id", BigInteger, ForeignKey("delivery.id"), nullable=False),
    Column("lead_id", BigInteger, nullable=False, index=True),
    Column("outcome", _enum(Answer, "answer"), nullable=False),
    Column("status_code", Integer),
    Column("buyer_id", Text),
    Column("price", Numeric),
    Column("message", Text),
    _moment("at", now=True),
)
"""What a buyer said to one lead at one time; rows are only ever added."""

suspension = Table(
    "suspension",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("scope", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("destination", Text, nullable=False, server_default=""),
    Column("cause", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("error_code", Text),
    Column("delivery_id", BigInteger, ForeignKey("delivery.id")),
    _moment("since", now=True),
    Column("actor", Text),
    _moment("until", nullable=True),
    _moment("resumed_at", nullable=True),
    Column("resumed_by", Text),
)
"""From when to when a batch, one of its destinations or a recipient gets nothing, and why."""

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _moment("at", now=True),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object", Text, nullable=False),
    Column("detail", JSONB, nullable=False, server_default="{}"),
)
"""Whatever a person did; rows are only ever added (I8)."""

skip_order = Table(
    "skip_order",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("batch_id", Text, nullable=False),
    _moment("departs_at"),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    _moment("ordered_at", now=True),
    Column("run_id", Text),
    UniqueConstraint("batch_id", "departs_at"),
    UniqueConstraint("batch_id", "run_id"),
)
"""A person's wish that a departure of a batch's timetable be left out; `run_id` is the run that was."""

credential = Table(
    "credential",
    metadata,
    Column("connection", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    _moment("first_seen_at"),
)
"""Since when an Airflow connection has held the same credentials; a slow, salted hash of them, never themselves."""

later_try = Table(
    "later_try",
    metadata,
    Column("delivery_id", ForeignKey("delivery.id"), primary_key=True),
    Column("destination", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    _moment("until"),
    Column("error_code", Text, nullable=False),
    _moment("ordered_at", now=True),
)
"""That a destination is tried once more at a time of day, after its last try failed (`retry.at`)."""

early_departure = Table(
    "early_departure",
    metadata,
    Column("batch_no", ForeignKey("batch.no"), primary_key=True),
    Column("after_delivery", BigInteger, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("reason", Text, nullable=False),
    _moment("ordered_at", now=True),
)
"""That a batch departs before its time, after each delivery (0 before the first): once, or where nothing else comes again and again."""

watched = Table(
    "watched",
    metadata,
    Column("batch", Text, primary_key=True),
    Column("schedule_sha256", Text, nullable=False),
    _moment("since"),
    _moment("seen_at"),
)
"""A batch that the watchdog looks after, and since when its schedule is as it is."""

incident = Table(
    "incident",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("batch", Text, nullable=False),
    Column("kind", Text, nullable=False),
    _moment("since"),
    _moment("noticed_at"),
    Column("detail", Text, nullable=False),
    _moment("told_at", nullable=True),
    _moment("recovered_at", nullable=True),
    _moment("recovery_told_at", nullable=True),
)
"""What went wrong with a batch, from when to when; never deleted, at most one open of a kind."""

retirement = Table(
    "retirement",
    metadata,
    Column("archive_key", Text, primary_key=True),
    Column("action", Text, primary_key=True),
    Column("place", Text, nullable=False, server_default=""),
    _moment("decided_at"),
    _moment("done_at", nullable=True),
)
"""That the bytes of a file were moved or removed because they were kept long enough; the file's row stays."""

state_move = Table(
    "state_move",
    metadata,
    Column("thing", Text, primary_key=True),
    Column("source", Text, primary_key=True),
    Column("target", Text, primary_key=True),
)
"""The allowed moves of `leadferry.states`, for the triggers."""

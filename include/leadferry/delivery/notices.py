"""Mail to our own people, `notify` in the batch file: never to the lead's recipient, never with a lead's data.

A notice that cannot be sent is logged and fails nothing: the delivery itself is not worse for it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import datetime

from leadferry.batch.conditions import NOT_READY
from leadferry.batch.model import Batch
from leadferry.delivery.settle import explain
from leadferry.destinations.email import Email
from leadferry.destinations.parcel import Parcel
from leadferry.errors import DeliveryError, LeadferryError
from leadferry.states import DeliveryState
from leadferry.store import history, suspensions
from leadferry.store.audit import note_once
from leadferry.store.claim import TOO_MANY, Claim
from leadferry.store.database import Database
from leadferry.store.ledger import Delivery, get_delivery
from leadferry.store.settling import Settlement
from leadferry.store.skips import SKIPPED_ON_REQUEST
from leadferry.store.suspensions import Suspension
from leadferry.units import told_duration, told_roughly
from leadferry.zones import told_moment

_log = logging.getLogger(__name__)


def tell_nothing_to_deliver(batch: Batch, claimed: Claim) -> None:
    """Tell `notify.empty` that a departure was skipped, where the batch asks for that notice."""
    if batch.empty == "notice" and claimed.is_new and not claimed.on_request:
        text = (
            f"Batch {batch.id} had nothing to deliver: {claimed.reason}. Leads that wait stay in the queue."
        )
        _send(
            batch,
            batch.notify.empty,
            key=f"{batch.id}.{claimed.delivery_id}.empty",
            what="nothing to deliver",
            text=text,
        )


def tell_changed_fields(batch: Batch, claimed: Claim) -> None:
    """Tell `notify.failure` that a delivery has other columns than the one before it, where the batch wants that."""
    if claimed.changed_fields is None or not claimed.included or not claimed.is_new:
        return
    text = (
        f"Delivery {claimed.delivery_id} of batch {batch.id} has other columns than the one before it:"
        f" {claimed.changed_fields}."
    )
    key = f"{batch.id}.{claimed.delivery_id}.fields"
    _send(batch, batch.notify.failure, key=key, what="changed columns", text=text)


def tell_caps(batch: Batch, claimed: Claim) -> None:
    """Tell `notify.caps` which caps are nearly or completely used up, once in each period."""
    for cap in claimed.caps:
        until = "" if cap.ends is None else f" until {told_moment(cap.ends, zone=batch.timezone)}"
        how_far = "reached" if cap.level == "reached" else "nearly reached"
        text = f"Batch {batch.id}: {cap.name} is {how_far}{until}: {cap.used:f} of {cap.amount:f} used."
        if claimed.left:
            text += f" Leads that may go but stay in the queue: {claimed.left}."
        _log.warning("%s", text)
        key = f"{batch.id}.{claimed.delivery_id}.{cap.level}.{hashlib.sha256(cap.name.encode()).hexdigest()[:12]}"
        _send(batch, batch.notify.caps, key=key, what=f"cap {how_far}", text=text)


def tell_failure(delivery: Delivery, settlement: Settlement, *, suspended: Sequence[Suspension] = ()) -> None:
    """Tell `notify.failure` that a delivery failed, is partial, waits for a person, or did not go everywhere.

    Args:
        delivery: what was settled.
        settlement: how.
        suspended: what is left alone from now on because of it.
    """
    batch = Batch.model_validate(delivery.config)
    key = f"{batch.id}.{delivery.id}.{settlement.state}"
    what = str(settlement.state)
    if settlement.state is DeliveryState.DELIVERED:
        what = "delivered, but not everywhere"
    consequences = [
        f"From now on, {one.told(zone=batch.schedule_zone)}."
        f" `leadferry resume {batch.id} --destination {one.destination} --reason TEXT` ends this."
        for one in suspended
    ]
    more = f"`leadferry dispatch list {delivery.id}` shows each file with its evidence or error (batch {batch.id})."
    text = " ".join([explain(settlement), *consequences, more])
    _send(batch, batch.notify.failure, key=key, what=what, text=text)


def tell_outcome(database: Database, delivery: Delivery, settlement: Settlement) -> bool:
    """Tell `notify.failure` what it must know of a settled delivery, in at most one mail; return whether all is well."""
    on_request = (settlement.reason or "").startswith(SKIPPED_ON_REQUEST)
    in_vain = (settlement.reason or "").startswith((NOT_READY, TOO_MANY))
    on_purpose = not in_vain and (delivery.on_hold or on_request or delivery.config["empty"] != "fail")
    well = settlement.state is DeliveryState.DELIVERED or (
        settlement.state is DeliveryState.SKIPPED and on_purpose
    )
    if not well or (settlement.state is DeliveryState.DELIVERED and settlement.reason):
        tell_failure(delivery, settlement, suspended=suspensions.caused_by(database, delivery.id))
    elif settlement.state is DeliveryState.DELIVERED:
        before = history.state_before(database, delivery)
        if before is not None and before is not DeliveryState.DELIVERED:
            tell_recovery(delivery, before)
    return well


def tell_if_late(database: Database, delivery_id: int, *, now: datetime) -> None:
    """Note, and tell `notify.failure` once, that files built ahead were not ready at the time of the departure."""
    delivery = get_delivery(database, delivery_id)
    batch = Batch.model_validate(delivery.config)
    ahead = batch.built_ahead
    if ahead is None or now <= delivery.departs_at:
        return
    late = f"{told_roughly(now - delivery.departs_at)} after its departure"
    if not note_once(
        database, action="delivery.built_late", subject=f"delivery {delivery_id}", detail={"built": late}
    ):
        return
    text = (
        f"The files of delivery {delivery_id} of batch {batch.id} were to be ready {told_duration(ahead)} ahead, and were"
        f" ready {late}. They are sent now; let `generate_before` be longer, or look why it took so long."
    )
    _log.warning("%s", text)
    _send(
        batch, batch.notify.failure, key=f"{batch.id}.{delivery_id}.built_late", what="built late", text=text
    )


def tell_recovery(delivery: Delivery, before: str) -> None:
    """Tell `notify.failure` that a batch delivers again; `before` says how its last delivery ended."""
    batch = Batch.model_validate(delivery.config)
    text = (
        f"Batch {batch.id} delivers again: delivery {delivery.id} is delivered ({delivery.included} included,"
        f" {delivery.withheld} withheld); the one before it was {before}."
    )
    key = f"{batch.id}.{delivery.id}.recovered"
    _send(batch, batch.notify.failure, key=key, what="delivers again", text=text)


def tell_unsettled(batch: Batch, *, run_id: str, error: LeadferryError) -> None:
    """Tell `notify.failure` that a run ended before its delivery could be closed, or even began."""
    text = f"Run {run_id} of batch {batch.id} ended without a delivery that could be closed. {error.code}: {error}"
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:12]
    _send(batch, batch.notify.failure, key=f"{batch.id}.{digest}.unsettled", what="not settled", text=text)


def _send(batch: Batch, people: Sequence[str], *, key: str, what: str, text: str) -> None:
    subject = f"Leadferry: {batch.name}: {what}"
    send_notice(connection=batch.notify.connection, people=people, key=key, subject=subject, text=text)


def send_notice(*, connection: str, people: Sequence[str], key: str, subject: str, text: str) -> bool:
    """Mail a text, taken literally; return whether the mail server took it for everybody. Raises nothing.

    Args:
        connection: Airflow connection of the mail server.
        people: addresses; one mail each.
        key: the same for the same notice, so that a mail server may see that it was sent twice.
        subject: no lead's data.
        text: no lead's data.
    """
    if not people:
        return True
    mail = Email(
        id="notice",
        connection=connection,
        to=list(people),
        subject=_literally(subject),
        body=_literally(text),
    )
    try:
        with mail.open() as session:
            for person in people:
                session.send(Parcel(key=key, attempt=1, files=(), addressee=person))
    except DeliveryError as error:
        _log.warning("The notice %s was not sent: %s", key, error)
        return False
    return True


def _literally(text: str) -> str:
    """Keep a text from being read as a template."""
    return "{% raw %}" + text.replace("{%", "{ %") + "{% endraw %}"

"""Mail to our own people, `notify` in the batch file: never to the lead's recipient, never with a lead's data.

A notice that cannot be sent is logged and fails nothing: the delivery itself is not worse for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from leadferry.batch.model import Batch
from leadferry.delivery.settle import explain
from leadferry.destinations.base import Parcel
from leadferry.destinations.email import Email
from leadferry.errors import DeliveryError
from leadferry.store.claim import Claim
from leadferry.store.ledger import Delivery, Settlement

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


def tell_failure(delivery: Delivery, settlement: Settlement) -> None:
    """Tell `notify.failure` that a delivery failed, is partial, or waits for a person."""
    batch = Batch.model_validate(delivery.config)
    key = f"{batch.id}.{delivery.id}.{settlement.state}"
    _send(batch, batch.notify.failure, key=key, what=str(settlement.state), text=explain(settlement))


def _send(batch: Batch, people: Sequence[str], *, key: str, what: str, text: str) -> None:
    if not people:
        return
    mail = Email(
        id="notice",
        connection=batch.notify.connection,
        to=list(people),
        subject=_literally(f"Leadferry: {batch.name}: {what}"),
        body=_literally(text),
    )
    try:
        with mail.open() as session:
            for person in people:
                session.send(Parcel(key=key, attempt=1, files=(), addressee=person))
    except DeliveryError as error:
        _log.warning("The notice %s was not sent: %s", key, error)


def _literally(text: str) -> str:
    """Keep a text from being read as a template."""
    return "{% raw %}" + text.replace("{%", "{ %") + "{% endraw %}"

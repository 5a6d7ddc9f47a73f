"""The steps of a delivery for tests, one call each, as Airflow's tasks take them."""

from __future__ import annotations

from email import message_from_bytes, policy

from batches import DEPARTS_AT, rows, trigger
from leadferry.archive import Archive
from leadferry.delivery import deliver, extract, render, settle
from leadferry.delivery.redelivery import ByHand, claim_redelivery
from leadferry.delivery.redelivery_params import Redeliver
from leadferry.errors import LeadferryError
from leadferry.store import ledger

SFTP = {"id": "sftp", "type": "sftp", "connection": "buyer_sftp", "directory": "/"}


def email(*to, **keys):
    return {"id": "mail", "type": "email", "to": list(to), "subject": "Leads", "body": "Attached.", **keys}


class Ferry:
    """Takes a batch's delivery from step to step."""

    def __init__(self, database, folder):
        self.database = database
        self.archive = Archive(str(folder))

    def extract(self, batch, run_id="run-1", **keys):
        return extract.extract(self.database, batch, trigger(run_id, **keys))

    def render(self, claimed):
        return render.render(self.database, self.archive, claimed.delivery_id)

    def deliver(self, claimed, destination_id):
        return deliver.deliver(self.database, self.archive, claimed.delivery_id, destination_id)

    def settle(self, claimed):
        return settle.settle(self.database, self.archive, claimed.delivery_id)

    def rendered(self, batch, run_id="run-1"):
        claimed = self.extract(batch, run_id)
        self.render(claimed)
        return claimed

    def carry(self, batch, run_id="run-1"):
        """The whole run; a destination that fails does not keep the others from being served, but calls its fallback."""
        claimed = self.rendered(batch, run_id)
        for way in batch.ways().values():
            for destination_id in way:
                if self.try_to_deliver(claimed, destination_id) is None:
                    break
        return self.settle(claimed)

    def try_to_deliver(self, claimed, destination_id):
        """One try; the error, or None."""
        try:
            self.deliver(claimed, destination_id)
        except LeadferryError as error:
            return error
        return None

    def choose(self, batch, run_id="by-hand-1", *, destination=None, actor="kim", **params):
        """The first step of a redelivery, with the parameters of the form."""
        asked = {"batch": batch.id, "destination": destination or batch.destinations[0].id, **params}
        by = ByHand(run_id=run_id, at=DEPARTS_AT, actor=actor)
        return claim_redelivery(self.database, batch, Redeliver.parse(asked), by)

    def redeliver(self, batch, run_id="by-hand-1", **params):
        """A whole redelivery; how it was settled."""
        claimed = self.choose(batch, run_id, **params)
        self.render(claimed)
        self.try_to_deliver(claimed, params.get("destination", batch.destinations[0].id))
        return self.settle(claimed)

    def delivery(self, claimed):
        return ledger.get_delivery(self.database, claimed.delivery_id)

    def attempts(self):
        """How every attempt ended: destination, number, outcome, error code."""
        return rows(
            self.database,
            "SELECT destination, number, outcome::text, attempt.error_code"
            " FROM attempt JOIN dispatch ON dispatch.id = dispatch_id ORDER BY destination, dispatch_id, number",
        )

    def dispatches(self):
        """Destination, addressee and state of every dispatch."""
        return rows(self.database, "SELECT destination, addressee, state::text FROM dispatch ORDER BY 1, 2")


def messages(mail):
    """Every message that the mail server keeps, as (recipient, subject, text)."""
    found = [message_from_bytes(path.read_bytes(), policy=policy.default) for path in mail.inbox.messages()]
    return [(one["X-Envelope-To"], one["Subject"], one.get_body().get_content()) for one in found]

"""Files that a mail links to instead of carrying them: put on a store first, so that no mail points to nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from leadferry.batch.model import Batch
from leadferry.destinations.base import Session, Shares
from leadferry.destinations.email import Email
from leadferry.destinations.parcel import Link, Parcel, Receipt
from leadferry.errors import BatchConfigError, PermanentDeliveryError

REMEDY = "link"


def with_links(batch: Batch, mail: Email, parcel: Parcel, *, linked: Sequence[str]) -> Parcel:
    """Put files on the store that the mail names, each once, and return the parcel with the links to them.

    Args:
        batch: has the store among its destinations.
        mail: says which one, and how long a link works.
        parcel: the mail's.
        linked: names of the files that are linked; the others stay attached.

    Raises:
        DeliveryError: the store does not take a file, or makes no links.
    """
    if mail.link_via is None:
        raise BatchConfigError(
            f"destination {mail.id!r} links files and does not say where they are",
            hint="Name the store in `link_via`",
        )
    store = batch.destination(mail.link_via)
    expires = datetime.now(UTC) + mail.link_expires
    links: list[Link] = []
    with store.open() as session:
        for file in parcel.files:
            if file.name in linked:
                alone = _alone(parcel, file.name)
                receipt = session.find(alone) or session.send(alone)
                url = _sharing(session, where=store.where).link(alone, expires=mail.link_expires)
                links.append(_link(file.name, url, receipt, via=store.id, expires=expires))
    return replace(parcel, links=tuple(links))


def _alone(parcel: Parcel, name: str) -> Parcel:
    """Return the parcel in which one file goes to the store; the same for every recipient of the mail and every try."""
    (file,) = (one for one in parcel.files if one.name == name)
    about = {**parcel.variables, "file": {**parcel.variables["file"], "name": name}}
    return Parcel(key=f"link.{file.sha256}", attempt=parcel.attempt, files=(file,), variables=about)


def _link(name: str, url: str, receipt: Receipt, *, via: str, expires: datetime) -> Link:
    return Link(name=name, url=url, expires=expires, via=via, location=receipt.location)


def _sharing(session: Session, *, where: str) -> Shares:
    if not isinstance(session, Shares):
        raise PermanentDeliveryError(
            f"{where} makes no links that anybody can open",
            hint="Name an object store (s3, gcs, azure) in link_via",
        )
    return session

"""Third step, once per destination: intent, send, verify, receipt (I4).

A parcel that is found `sending` belongs to a process that died: the destination is asked before anything is sent
again, and where it cannot be asked, a person is.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from itertools import dropwhile
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from leadferry.archive import Archive
from leadferry.batch.model import Batch
from leadferry.delivery import linked
from leadferry.delivery.extract import lease
from leadferry.delivery.holding import refuse_suspended
from leadferry.delivery.variables import file_variables
from leadferry.destinations.base import DestinationBase, Session
from leadferry.destinations.email import Email
from leadferry.destinations.parcel import Link, OutgoingFile, Parcel, Receipt
from leadferry.errors import (
    AuthenticationError,
    DeliveryError,
    DestinationBusyError,
    DestinationSuspendedError,
    LeadferryError,
    NameConflictError,
    NoSuchPathError,
    OutcomeUnknownError,
    StoreUnavailableError,
    TransferInterruptedError,
)
from leadferry.file_names import numbered_name
from leadferry.states import DeliveryKind, DeliveryState, DispatchState, FileKind
from leadferry.store import ledger, sending, settling, suspensions
from leadferry.store.database import Database
from leadferry.store.ledger import Delivery, StoredFile
from leadferry.store.responses import Responses
from leadferry.store.sending import Dispatch

_log = logging.getLogger(__name__)

KEEP_TRYING_TO_RECORD_SECONDS = 60
"""How long a confirmed arrival is held in hand when the store cannot be reached; after that it is looked up."""

MOST_NAMES = 999
"""How many names are tried where a taken one is followed by the next."""


def deliver(database: Database, archive: Archive, delivery_id: int, destination_id: str) -> int:
    """Send what is not yet confirmed to one destination; return how many dispatches are confirmed.

    Parcels are independent: one that fails does not keep the next from being sent.
    A fallback brings only what did not arrive at the destination that it replaces; 0 when it is not needed.

    Raises:
        DeliveryError: at least one parcel was not confirmed; the worst of their errors.
        DestinationSuspendedError: the destination is left alone at present: nothing was tried.
        StoreError: the delivery was settled meanwhile: nothing was sent.
    """
    delivery = ledger.get_delivery(database, delivery_id)
    if delivery.state in {DeliveryState.FAILED, DeliveryState.SKIPPED}:
        raise ledger.gone_too_far(delivery_id, delivery.state)
    batch = Batch.model_validate(delivery.config)
    _close_other_ways(database, archive, delivery, batch, destination_id)
    sender = _Sender(database, archive, delivery, destination_id)
    if sender.parcels():
        _refuse_suspended(database, delivery, batch, destination_id)
        with sender.connected():
            errors = list(sender.send_all())
        if errors:
            _leave_alone(database, delivery, destination_id, errors)
            raise max(errors, key=_severity)
    there = sending.dispatches_to(database, delivery_id, destination_id)
    return sum(one.state is DispatchState.CONFIRMED for one in there)


def _close_other_ways(
    database: Database, archive: Archive, delivery: Delivery, batch: Batch, destination_id: str
) -> None:
    """Make sure that what is sent now neither arrived by another destination of the way nor still may.

    Raises:
        OutcomeUnknownError: it may have arrived there.
        DeliveryError: the other destination could not be asked now; try again.
    """
    others = set(batch.ways()[batch.way_of(destination_id)]) - {destination_id}
    if not others:
        return
    look_up(database, archive, delivery.id, only=others)
    for one in sending.dispatches_to(database, delivery.id):
        if one.destination in others and one.state is DispatchState.UNKNOWN:
            raise OutcomeUnknownError(
                f"{destination_id!r} is not used: parcel {one.parcel_key} may have arrived at {one.destination!r}"
            )
    settling.skip_unneeded(database, delivery.id)


def _refuse_suspended(database: Database, delivery: Delivery, batch: Batch, destination_id: str) -> None:
    try:
        refuse_suspended(database, batch, destination_id, delivery.kind)
    except DestinationSuspendedError as error:
        sending.note_unsent(database, delivery.id, destination_id, error)
        raise


def _leave_alone(
    database: Database, delivery: Delivery, destination_id: str, errors: Sequence[LeadferryError]
) -> None:
    """Suspend a destination that refused the login."""
    if delivery.kind is DeliveryKind.TEST or not any(isinstance(one, AuthenticationError) for one in errors):
        return
    suspensions.suspend_after_refused_login(
        database, batch_id=delivery.batch_id, destination=destination_id, delivery_id=delivery.id
    )


def look_up(
    database: Database, archive: Archive, delivery_id: int, *, only: Collection[str] | None = None
) -> None:
    """Find out what became of dispatches whose sender died, and write it down; sends nothing.

    Args:
        database: the lead store.
        archive: where the stored bytes are.
        delivery_id: whose dispatches.
        only: the destinations to ask; all when left out.

    Raises:
        DeliveryError: a destination could not be asked now; try again.
    """
    delivery = ledger.get_delivery(database, delivery_id)
    lost = {
        one.destination
        for one in sending.dispatches_to(database, delivery_id)
        if one.state is DispatchState.SENDING and (only is None or one.destination in only)
    }
    for destination_id in sorted(lost):
        sender = _Sender(database, archive, delivery, destination_id)
        with sender.connected():
            sender.look_up_all()


def _severity(error: LeadferryError) -> int:
    """Order errors by how much they need a person: an unknown outcome before a permanent before a passing one."""
    return 2 if isinstance(error, OutcomeUnknownError) else 1 if not error.retry else 0


class _Sender:
    """One destination of one delivery; connects when there is something to send."""

    def __init__(self, database: Database, archive: Archive, delivery: Delivery, destination_id: str) -> None:
        self.database = database
        self.archive = archive
        self.delivery = delivery
        self.batch = Batch.model_validate(delivery.config)
        self.destination: DestinationBase = self.batch.destination(destination_id)
        self.files = {file.id: file for file in ledger.stored_files(database, delivery.id)}
        self._cleanup = ExitStack()
        self._connection = ExitStack()
        self._session: Session | None = None
        self._out_of_reach = False

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Close the connection, if one was made, and give up local copies at the end."""
        with self._cleanup, self._connection:
            yield

    def session(self) -> Session:
        """Return the open connection; opens it on the first call."""
        if self._session is None:
            self._out_of_reach = True
            self._session = self._connection.enter_context(self.destination.open())
            self._out_of_reach = False
        return self._session

    def parcels(self) -> list[list[Dispatch]]:
        """Return the needed dispatches that travel together, parcel by parcel, in the order in which they are sent."""
        found: dict[str, list[Dispatch]] = {}
        for one in sending.dispatches_to(self.database, self.delivery.id, self.destination.id):
            if one.state is not DispatchState.SKIPPED:
                found.setdefault(one.parcel_key, []).append(one)
        return list(found.values())

    def send_all(self) -> Iterator[LeadferryError]:
        """Send every parcel that is not confirmed; yield what went wrong, without stopping for it."""
        complete = True
        for dispatches in self.parcels():
            if not complete and self._tells_of_others(dispatches):
                continue  # a manifest must not announce what is not there
            try:
                self._bring_home(dispatches[0].parcel_key)
            except DeliveryError as error:
                _log.warning("Parcel %s: %s", dispatches[0].parcel_key, error)
                complete = False
                yield error
                if self._out_of_reach or isinstance(error, AuthenticationError):
                    return  # no connection or a refused login: the other parcels would fail alike

    def _tells_of_others(self, dispatches: Sequence[Dispatch]) -> bool:
        with_leads = {FileKind.LEADS, FileKind.VARIANT}
        return all(self.files[one.file_id].kind not in with_leads for one in dispatches)

    def look_up_all(self) -> None:
        """Ask the destination about every parcel that is `sending`."""
        for dispatches in self.parcels():
            if _any(dispatches, DispatchState.SENDING):
                with sending.sole_sender(self.database, dispatches[0].parcel_key):
                    current = self._current(dispatches[0].parcel_key)
                    # A sender that was alive after all may have ended it while we waited for our turn.
                    if _any(current, DispatchState.SENDING):
                        self._look_up(current)

    def _current(self, parcel_key: str) -> list[Dispatch]:
        return next((found for found in self.parcels() if found[0].parcel_key == parcel_key), [])

    def _bring_home(self, parcel_key: str) -> None:
        """Take one parcel from wherever it stands to confirmed."""
        with sending.sole_sender(self.database, parcel_key):
            dispatches = self._current(parcel_key)
            if _any(dispatches, DispatchState.SENDING):
                dispatches = self._look_up(dispatches)
            if _any(dispatches, DispatchState.UNKNOWN):
                raise OutcomeUnknownError(f"Parcel {parcel_key} to {self.destination.where} may have arrived")
            if not all(one.state is DispatchState.CONFIRMED for one in dispatches):
                self._send(dispatches)

    def _send(self, dispatches: Sequence[Dispatch]) -> None:
        links = self._links(dispatches)
        number = sending.begin_sending(self.database, dispatches, lease=lease(self.batch))
        try:
            if isinstance(links, LeadferryError):
                raise links
            parcel = replace(self._parcel(dispatches, attempt=number), links=links)
            parcel, receipt = self._named(parcel, dispatches, number=number)
        except LeadferryError as error:
            self._record(dispatches, DispatchState.FAILED, number=number, error=error)
            raise  # nothing was sent
        if receipt is None:
            try:
                receipt = self.session().send(parcel)
            except LeadferryError as error:
                receipt = self._ask_after(error, parcel, dispatches, number=number)
        # Anything else (a kill, a time-out by Airflow, a bug) leaves it `sending`: the next try asks the destination.
        self._record(dispatches, DispatchState.CONFIRMED, number=number, receipt=receipt)
        _log.info("Parcel %s confirmed at %s", dispatches[0].parcel_key, receipt.location)

    def _links(self, dispatches: Sequence[Dispatch]) -> tuple[Link, ...] | LeadferryError:
        """Store what the mail will link to, before its intent: a crash while storing leaves the mail itself in no doubt."""
        if dispatches[0].remedy != linked.REMEDY or not isinstance(self.destination, Email):
            return ()
        leads = [self.files[one.file_id] for one in dispatches]
        names = [file.name for file in leads if file.kind is FileKind.LEADS]
        try:
            if self.destination.link_via is not None:
                refuse_suspended(self.database, self.batch, self.destination.link_via, self.delivery.kind)
            parcel = self._parcel(dispatches, attempt=max(one.attempts for one in dispatches) + 1)
            return linked.with_links(self.batch, self.destination, parcel, linked=names).links
        except AuthenticationError as refused:
            # The store's login, not the mail server's: it is the store that is left alone.
            _leave_alone(self.database, self.delivery, self.destination.link_via or "", [refused])
            return DestinationSuspendedError(refused.what, hint=refused.next_step)
        except LeadferryError as error:
            return error

    def _named(
        self, parcel: Parcel, dispatches: Sequence[Dispatch], *, number: int
    ) -> tuple[Parcel, Receipt | None]:
        """Find the name under which the parcel goes, and the receipt if it is there already.

        A name that the destination itself may choose is in the ledger before it is used (I4): every later try asks
        for that name first, and never sends a second copy under another one.
        """
        if not self.destination.may_rename:
            return parcel, self._there_already(parcel)
        for name in _names(self.files[dispatches[0].file_id].name, first=dispatches[0].sent_as):
            candidate = parcel.named(name)
            try:
                receipt = self._there_already(candidate)
            except NameConflictError:
                continue
            sending.choose_name(self.database, dispatches, name, number=number)
            return candidate, receipt
        raise NameConflictError(
            f"{self.destination.where}: {MOST_NAMES} names like {parcel.file.name} are taken"
        )

    def _there_already(self, parcel: Parcel) -> Receipt | None:
        """Look before sending: some destinations refuse credentials only at the first request, and then nothing was sent."""
        session = self.session()
        if not self.destination.can_be_asked:
            return None
        try:
            return session.find(parcel)
        except OutcomeUnknownError:
            return None  # its absence proves nothing, and every earlier try was cleared up

    def _ask_after(
        self, error: LeadferryError, parcel: Parcel, dispatches: Sequence[Dispatch], *, number: int
    ) -> Receipt:
        """Find out what an error while sending means: it may have come after the file was published.

        Returns the receipt when the parcel is there all the same. Otherwise it raises: the error itself once it is
        proven that nothing arrived; where nobody can be asked now, the dispatch stays `sending`, and the next try asks.
        """
        if not self.destination.can_be_asked:
            unknown = isinstance(error, OutcomeUnknownError)
            outcome = DispatchState.UNKNOWN if unknown else DispatchState.FAILED
            self._record(dispatches, outcome, number=number, error=error)
            raise error
        try:
            found = self._find_anew(parcel)
        except (NameConflictError, NoSuchPathError):
            found = None  # what stands there is not this parcel, or there is nothing at all
        except OutcomeUnknownError as unknown_for_good:
            self._record(dispatches, DispatchState.UNKNOWN, number=number, error=unknown_for_good)
            raise
        except LeadferryError:
            raise TransferInterruptedError(f"{error.what}; the next try asks the destination") from None
        if found is not None:
            return found
        if isinstance(error, NameConflictError) and self.destination.may_rename:
            hint = "Nothing to do: the next try takes the next free name"
            error = DestinationBusyError(f"{error.what} since we looked", hint=hint)
        self._record(dispatches, DispatchState.FAILED, number=number, error=error)
        raise error

    def _find_anew(self, parcel: Parcel) -> Receipt | None:
        """Ask on a connection of its own: the one on which sending failed may be dead."""
        with suppress(LeadferryError, OSError):
            self._connection.close()
        self._session = None
        return self.session().find(parcel)

    def _look_up(self, dispatches: Sequence[Dispatch]) -> list[Dispatch]:
        """Ask the destination what became of a parcel whose sender died."""
        number = max(one.attempts for one in dispatches)
        parcel = self._parcel(dispatches, attempt=number)
        try:
            # Without a name nothing was sent: the ledger has it before the first byte goes.
            unnamed = self.destination.may_rename and dispatches[0].sent_as is None
            receipt = None if unnamed else self.session().find(parcel)
        except (OutcomeUnknownError, NameConflictError) as error:
            # Other bytes under the name: ours never arrived, or were replaced since. Only the recipient knows.
            self._record(dispatches, DispatchState.UNKNOWN, number=number, error=error)
        else:
            if receipt is not None:
                self._record(dispatches, DispatchState.CONFIRMED, number=number, receipt=receipt)
            else:
                died = TransferInterruptedError(
                    f"The process that sent parcel {parcel.key} died; nothing had arrived"
                )
                self._record(dispatches, DispatchState.READY, number=number, error=died)
        return self._current(parcel.key)

    def _record(
        self,
        dispatches: Sequence[Dispatch],
        outcome: DispatchState,
        *,
        number: int,
        receipt: Receipt | None = None,
        error: LeadferryError | None = None,
    ) -> None:
        evidence = None if receipt is None else _evidence(receipt)
        patiently = Retrying(
            retry=retry_if_exception_type(StoreUnavailableError),
            stop=stop_after_delay(KEEP_TRYING_TO_RECORD_SECONDS),
            wait=wait_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        patiently(
            sending.end_sending,
            self.database,
            dispatches,
            outcome,
            number=number,
            receipt=evidence,
            error=error,
        )

    def _parcel(self, dispatches: Sequence[Dispatch], *, attempt: int) -> Parcel:
        files = [self.files[one.file_id] for one in dispatches]
        names = ", ".join(file.name for file in files if file.kind is not FileKind.CHART)
        part, parts = self._place_among_parts(dispatches[0])
        parcel = Parcel(
            key=dispatches[0].parcel_key,
            attempt=attempt,
            files=tuple(self._outgoing(file) for file in files),
            addressee=dispatches[0].addressee or None,
            variables=file_variables(self.batch, self.delivery, file_name=names),
            part=part,
            parts=parts,
            remedy=dispatches[0].remedy,
            is_test=self.delivery.kind is DeliveryKind.TEST,
            redelivery=self.delivery.mark,
            answers=self._cleanup.enter_context(
                Responses(self.database, dispatch_id=dispatches[0].id, attempt=attempt)
            ),
        )
        sent_as = dispatches[0].sent_as
        return parcel if sent_as is None else parcel.named(sent_as)

    def _place_among_parts(self, one: Dispatch) -> tuple[int, int]:
        """Return which of how many parcels it is, where what the addressee gets was divided."""
        if not self.destination.sends_files_together:
            return 1, 1
        keys = [found[0].parcel_key for found in self.parcels() if found[0].addressee == one.addressee]
        return keys.index(one.parcel_key) + 1, len(keys)

    def _outgoing(self, file: StoredFile) -> OutgoingFile:
        path = self._cleanup.enter_context(self.archive.local_copy(file.archive_key, sha256=file.sha256))
        return OutgoingFile(
            name=file.name,
            path=path,
            size=file.size,
            sha256=file.sha256,
            rows=file.rows,
            media_type=file.media_type,
            inline=file.kind is FileKind.CHART,
        )


def _names(name: str, *, first: str | None) -> Iterator[str]:
    """Yield the names under which a file may be sent, from `first` on: the file's own, then numbered ones."""
    names = (numbered_name(name, number) for number in range(1, MOST_NAMES + 1))
    return dropwhile(lambda one: first not in {None, one}, names)


def _any(dispatches: Sequence[Dispatch], state: DispatchState) -> bool:
    return any(one.state is state for one in dispatches)


def _evidence(receipt: Receipt) -> dict[str, Any]:
    return {name: value for name, value in asdict(receipt).items() if value not in (None, {})}

"""Requests to buyers' APIs and what the buyers said to each lead; the ledger's side of `leadferry.exchange`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Self

from sqlalchemy import (
    Connection,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from leadferry.errors import LeadferryError, StoreError, StoreUnavailableError
from leadferry.exchange import Intent, LeadAnswer, Reply, Standing
from leadferry.states import Answer, DispatchState, RequestState
from leadferry.store.database import Database, store_errors
from leadferry.store.tables import dispatch, file, request, response

KEEP_TRYING_SECONDS = 60
"""How long answers are held in hand when the store cannot be reached; after that they are lost, and so is the request."""


@dataclass
class Responses:
    """The requests of one dispatch, for the attempt that is under way; keeps its connection to the store open.

    Args:
        database: the lead store.
        dispatch_id: whose requests.
        attempt: the attempt as `sending.begin_sending` returned it. One that was superseded may not write any more.
    """

    database: Database
    dispatch_id: int
    attempt: int
    _held: ExitStack = field(default_factory=ExitStack)
    _connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection; what was committed is safe whatever happens here."""
        self._let_go()

    def standing(self, first: int, last: int) -> Mapping[int, Standing]:
        """Return the requests with numbers from `first` to `last` that ever went out."""
        query = select(request.c.number, request.c.state, request.c.lead_ids).where(
            request.c.dispatch_id == self.dispatch_id, request.c.number.between(first, last)
        )
        with self.database.transaction() as connection:
            found = connection.execute(query).all()
        return {row.number: Standing(state=row.state, lead_ids=tuple(row.lead_ids)) for row in found}

    def counts(self) -> Mapping[Answer, int]:
        """Count the leads by their final answer."""
        with self.database.transaction() as connection:
            return final_answers(connection, self.dispatch_id)

    def settle_lost(self, state: RequestState) -> int:
        """Move requests whose sender died to `open` or `unknown`; return how many are `unknown` now.

        Raises:
            StoreError: another attempt took over, whose requests are not lost.
        """
        mine = request.c.dispatch_id == self.dispatch_id
        with self.database.transaction() as connection:
            self._still_mine(connection)
            connection.execute(
                update(request).where(mine, request.c.state == RequestState.SENDING).values(state=state)
            )
            unknown = select(func.count()).where(mine, request.c.state == RequestState.UNKNOWN)
            return connection.scalars(unknown).one()

    def advance(self, *, ended: Sequence[Reply] = (), begun: Sequence[Intent] = ()) -> None:
        """Write down in one transaction how requests ended and which go out next.

        The same call again, after a lost answer to its commit, changes nothing more.

        Raises:
            StoreError: another attempt took over; nothing was written.
            StoreUnavailableError: the store stayed away for `KEEP_TRYING_SECONDS`.
        """
        patiently = Retrying(
            retry=retry_if_exception_type(StoreUnavailableError),
            stop=stop_after_delay(KEEP_TRYING_SECONDS),
            wait=wait_exponential(multiplier=0.2, max=5),
            reraise=True,
        )
        patiently(self._advance, ended, begun)

    def _advance(self, ended: Sequence[Reply], begun: Sequence[Intent]) -> None:
        try:
            with store_errors():
                connection = self._open()
                with connection.begin():
                    delivery_id = self._still_mine(connection)
                    if ended:
                        self._end(connection, delivery_id, ended)
                    if begun:
                        self._begin(connection, begun)
        except LeadferryError:
            self._let_go()
            raise

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._held.enter_context(self.database.engine.connect())
        return self._connection

    def _let_go(self) -> None:
        self._connection = None
        with suppress(Exception):
            self._held.close()

    def _still_mine(self, connection: Connection) -> int:
        """Refuse to write for a sender that lost its right to send; return the delivery."""
        owner = connection.scalar(
            select(dispatch.c.delivery_id)
            .where(
                dispatch.c.id == self.dispatch_id,
                dispatch.c.attempts == self.attempt,
                dispatch.c.state == DispatchState.SENDING,
            )
            .with_for_update(read=True)
        )
        if owner is None:
            raise StoreError(
                f"Dispatch {self.dispatch_id} is not being sent by attempt {self.attempt} any more",
                hint="Nothing to do: another process took over and finds out what became of it",
            )
        delivery_id: int = owner
        return delivery_id

    def _begin(self, connection: Connection, begun: Sequence[Intent]) -> None:
        rows = [
            {
                "dispatch_id": self.dispatch_id,
                "number": one.number,
                "lead_ids": list(one.lead_ids),
                "idempotency_key": one.key,
                "state": RequestState.SENDING,
            }
            for one in begun
        ]
        new = upsert(request).values(rows)
        intent = new.on_conflict_do_update(
            index_elements=[request.c.dispatch_id, request.c.number],
            set_={
                "state": RequestState.SENDING,
                "lead_ids": new.excluded.lead_ids,
                "idempotency_key": new.excluded.idempotency_key,
                "attempts": request.c.attempts + 1,
                "sent_at": func.now(),
            },
            where=request.c.state.in_([RequestState.OPEN, RequestState.SENDING]),
        )
        if len(connection.scalars(intent.returning(request.c.id)).all()) != len(rows):
            raise StoreError(
                f"A request of dispatch {self.dispatch_id} was answered before it was sent again"
            )

    def _end(self, connection: Connection, delivery_id: int, ended: Sequence[Reply]) -> None:
        mine = request.c.dispatch_id == self.dispatch_id
        ids: dict[int, int] = {}
        for one in ended:
            changed = (
                update(request)
                .where(
                    mine,
                    request.c.number == one.number,
                    request.c.state.in_([RequestState.SENDING, one.state]),
                )
                .values(_ending(one))
                .returning(request.c.id)
            )
            ids[one.number] = connection.scalars(changed).one()
        rows = [
            _answer_row(answer, one, request_id=ids[one.number], delivery_id=delivery_id)
            for one in ended
            for answer in one.answers
        ]
        if rows:
            connection.execute(upsert(response).on_conflict_do_nothing(), rows)


def _ending(one: Reply) -> dict[str, Any]:
    return {
        "state": one.state,
        # What is answered keeps its leads; what is open keeps those that are sent again.
        **({"lead_ids": list(one.lead_ids)} if one.state is RequestState.OPEN else {}),
        "status_code": one.status_code,
        "latency_ms": one.latency_ms,
        "body": one.excerpt,
        "error_code": one.error_code,
        "answered_at": func.now() if one.status_code is not None else None,
    }


def _answer_row(answer: LeadAnswer, reply: Reply, *, request_id: int, delivery_id: int) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "delivery_id": delivery_id,
        "lead_id": answer.lead_id,
        "outcome": answer.outcome,
        "status_code": reply.status_code,
        "buyer_id": answer.buyer_id,
        "price": answer.price,
        "message": answer.message,
    }


def final_answers(connection: Connection, dispatch_id: int) -> dict[Answer, int]:
    """Count the leads of a dispatch by their final answer."""
    query = (
        select(response.c.outcome, func.count().label("leads"))
        .join(request, request.c.id == response.c.request_id)
        .where(request.c.dispatch_id == dispatch_id, response.c.outcome != Answer.RETRY)
        .group_by(response.c.outcome)
    )
    return {row.outcome: row.leads for row in connection.execute(query)}


def has_answers(connection: Connection, delivery_id: int) -> bool:
    """Tell whether a buyer answered at least one request of a delivery: then its leads must not go back to the queue."""
    answered = (
        select(literal(1))
        .join(dispatch, dispatch.c.id == request.c.dispatch_id)
        .where(dispatch.c.delivery_id == delivery_id, request.c.state == RequestState.ANSWERED)
    )
    return bool(connection.scalar(select(exists(answered))))


def resolve(
    connection: Connection, dispatch_ids: Sequence[int], outcome: DispatchState, *, reason: str
) -> DispatchState:
    """Carry a person's word on a dispatch over to its `unknown` requests, in the caller's transaction.

    Args:
        connection: the transaction that settles the dispatch.
        dispatch_ids: all of one parcel.
        outcome: CONFIRMED makes accepted leads of those in doubt, FAILED leaves them to the next try.
        reason: how the person knows; stands with the leads.

    Returns:
        What the dispatches are now: CONFIRMED only when no lead of them is left without an answer.
    """
    doubtful = request.c.dispatch_id.in_(dispatch_ids), request.c.state == RequestState.UNKNOWN
    arrived = outcome is DispatchState.CONFIRMED
    if arrived:
        each = (
            select(
                request.c.id,
                dispatch.c.delivery_id,
                func.unnest(request.c.lead_ids),
                literal(Answer.ACCEPTED, response.c.outcome.type),
                literal(reason),
            )
            .join(dispatch, dispatch.c.id == request.c.dispatch_id)
            .where(*doubtful)
        )
        columns = ["request_id", "delivery_id", "lead_id", "outcome", "message"]
        connection.execute(insert(response).from_select(columns, each))
    target = RequestState.ANSWERED if arrived else RequestState.OPEN
    touched = connection.execute(update(request).where(*doubtful).values(state=target)).rowcount
    if touched and arrived and any(_left(connection, one) for one in dispatch_ids):
        return DispatchState.FAILED
    return outcome


def _left(connection: Connection, dispatch_id: int) -> int:
    """Count the leads of a dispatch that have no final answer; a file that went as a whole has none to have."""
    leads = select(func.cardinality(request.c.lead_ids)).where(
        request.c.dispatch_id == dispatch_id, func.cardinality(request.c.lead_ids) > 0
    )
    if connection.scalar(leads.limit(1)) is None:
        return 0
    rows: int = connection.scalars(
        select(file.c.rows)
        .join(dispatch, dispatch.c.file_id == file.c.id)
        .where(dispatch.c.id == dispatch_id)
    ).one()
    return rows - sum(final_answers(connection, dispatch_id).values())

"""An open connection to a buyer's API: what was answered already, and sending the rest."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from leadferry.destinations.base import Session
from leadferry.destinations.faults.http import http_faults
from leadferry.destinations.http.auth import Credentials, Signer
from leadferry.destinations.http.bodies import of_bytes
from leadferry.destinations.http.errand import Errand, idempotency_key
from leadferry.destinations.http.pace import Pace
from leadferry.destinations.http.requests import Requests
from leadferry.destinations.http.rules import Body
from leadferry.destinations.http.transport import Address, HttpAnswer, Wire, WireError, address_of
from leadferry.destinations.http.veil import Veil
from leadferry.destinations.http.verdict import Judge
from leadferry.destinations.parcel import Parcel, Receipt
from leadferry.errors import (
    AuthenticationError,
    DeliveryError,
    DestinationBusyError,
    OutcomeUnknownError,
    PermanentDeliveryError,
)
from leadferry.exchange import Answers, Intent, Reply
from leadferry.states import Answer, RequestState

if TYPE_CHECKING:
    from leadferry.destinations.http.keys import HttpKeys


def look_up(destination: HttpKeys) -> tuple[Address, Credentials]:
    """Read the Airflow connection.

    Raises:
        PermanentDeliveryError: Airflow does not know it, or it leads nowhere.
    """
    from airflow.sdk import Connection

    with http_faults(destination.via):
        found = Connection.get(destination.connection)
        address = address_of(host=found.host, schema=found.schema, port=found.port)
        extra: dict[str, Any] = found.extra_dejson
    credentials = Credentials(
        connection=destination.connection,
        login=found.login or "",
        password=found.password or "",
        extra=extra,
    )
    return address, credentials


class HttpSession(Session):
    """Sends requests and remembers their answers in the parcel's `answers`."""

    def __init__(self, destination: HttpKeys, wire: Wire, signer: Signer | None, *, where: str) -> None:
        self._destination = destination
        self._wire = wire
        self._signer = signer
        self._where = where
        self._judge = Judge(destination.answers, destination.capture, destination.items, where)

    def find(self, parcel: Parcel) -> Receipt | None:
        """Tell whether every lead of the parcel was answered; the buyer is not asked, what was stored says it.

        Raises:
            OutcomeUnknownError: requests went out whose answers are lost, and the buyer takes a repeated one for new.
        """
        answers = _remembered(parcel)
        lost = RequestState.OPEN if self._destination.idempotent else RequestState.UNKNOWN
        if unknown := answers.settle_lost(lost):
            raise OutcomeUnknownError(
                f"{self._where}: {unknown} requests went out of which nobody knows whether the buyer took them"
            )
        if self._destination.takes == "files":
            return self._find_file(parcel, answers)
        counts = answers.counts()
        return self._receipt(parcel, counts) if sum(counts.values()) == parcel.file.rows else None

    def send(self, parcel: Parcel) -> Receipt:
        """Send what is not answered yet; with leads, every one of them has an answer afterwards."""
        answers = _remembered(parcel)
        requests = Requests(self._destination, self._wire, self._signer, parcel)
        if self._destination.takes == "files":
            return self._send_file(parcel, answers, requests)
        pace = Pace(self._destination.requests_per_second)
        Errand(self._destination, requests, self._judge, parcel, answers, pace).run()
        counts = answers.counts()
        if sum(counts.values()) != parcel.file.rows:
            raise OutcomeUnknownError(f"{self._where}: not every lead was answered")
        return self._receipt(parcel, counts)

    def probe(self, parcel: Parcel) -> str:  # noqa: ARG002  (no lead is sent)
        """Reach the host, and log in where that is a step of its own; no lead is sent."""
        proof = self._signer.headers(of_bytes("text/plain", b"")) if self._signer else {}
        try:
            answer = self._wire.send("OPTIONS", self._wire.address.base, payload=None, headers=proof)
        except WireError as failed:
            raise failed.error from None
        if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED}:
            raise AuthenticationError(f"{self._where}: OPTIONS was answered with HTTP {answer.status}")
        return f"reached (OPTIONS was answered with HTTP {answer.status}); no lead was sent"

    def _receipt(self, parcel: Parcel, counts: Any) -> Receipt:
        told = {str(outcome): counts.get(outcome, 0) for outcome in Answer if outcome is not Answer.RETRY}
        return Receipt(location=self._location, details={"answers": told, "leads": parcel.file.rows})

    @property
    def _location(self) -> str:
        return self._wire.address.url(self._destination.path)

    # --- the file itself

    def _find_file(self, parcel: Parcel, answers: Answers) -> Receipt | None:
        standing = answers.standing(1, 1).get(1)
        if standing is None or standing.state is not RequestState.ANSWERED:
            return None
        return Receipt(
            location=self._location, size=parcel.file.size, details={"verified": "accepted before"}
        )

    def _send_file(self, parcel: Parcel, answers: Answers, requests: Requests) -> Receipt:
        for _ in parcel.file.blocks():
            pass  # raises when the stored copy is damaged, before a byte of it is sent
        key = idempotency_key(parcel, [])
        answers.advance(begun=[Intent(number=1, lead_ids=(), key=key)])
        try:
            answer = requests.send_file(key)
        except WireError as failed:
            self._unanswered(answers, failed)
            raise failed.error from None
        except DeliveryError as error:
            answers.advance(ended=[Reply(number=1, state=RequestState.OPEN, error_code=error.code)])
            raise
        return self._judged(parcel, answers, answer)

    def _unanswered(self, answers: Answers, failed: WireError) -> None:
        """Remember that no answer came; a body that did not go out whole, or may go out twice, stays open."""
        doubtful = failed.perhaps_taken and not self._destination.idempotent
        state = RequestState.UNKNOWN if doubtful else RequestState.OPEN
        answers.advance(ended=[Reply(number=1, state=state, error_code=failed.error.code)])

    def _judged(self, parcel: Parcel, answers: Answers, answer: HttpAnswer) -> Receipt:
        body = Body(answer.text)
        outcome = self._judge.outcome(answer, body)
        error = None if outcome in {Answer.ACCEPTED, Answer.DUPLICATE} else self._refused(answer, outcome)
        doubtful = isinstance(error, OutcomeUnknownError) and not self._destination.idempotent
        state = RequestState.UNKNOWN if doubtful else RequestState.OPEN if error else RequestState.ANSWERED
        reply = Reply(
            number=1,
            state=state,
            status_code=answer.status,
            latency_ms=answer.latency_ms,
            excerpt=Veil([]).excerpt(answer.text),
            error_code=error.code if error else None,
        )
        answers.advance(ended=[reply])
        if error is not None:
            raise error
        told = self._judge.capture.buyer_id.text(body) if self._judge.capture.buyer_id else None
        details = {"status": answer.status, "answer": str(outcome), **({"buyer_id": told} if told else {})}
        return Receipt(location=self._location, size=parcel.file.size, details=details)

    def _refused(self, answer: HttpAnswer, outcome: Answer | None) -> DeliveryError:
        what = f"{self._where}: the file was answered with HTTP {answer.status}"
        if outcome is Answer.RETRY:
            return DestinationBusyError(what)
        if outcome is None and (refusal := self._judge.refusal(answer)) is not None:
            return refusal
        if outcome is None and answer.status >= 500:  # noqa: PLR2004  (a server's own failure)
            return (
                DestinationBusyError(what)
                if self._destination.idempotent
                else OutcomeUnknownError(f"{what}, which does not say whether it was taken")
            )
        hint = "Read the answer's start in the store (table request), and add a rule under answers if it was a yes"
        return PermanentDeliveryError(f"{what}, which is not a yes", hint=hint)


def _remembered(parcel: Parcel) -> Answers:
    if parcel.answers is None:
        raise PermanentDeliveryError(
            "An HTTP destination needs the lead store to remember its requests",
            hint="Deliver by a batch; probe tries the connection without sending",
        )
    return parcel.answers

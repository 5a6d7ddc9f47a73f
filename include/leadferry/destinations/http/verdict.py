"""From an HTTP answer to what becomes of each lead in the request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from leadferry.destinations.faults import SENTENCES
from leadferry.destinations.faults.http import HTTP_STATUS
from leadferry.destinations.http.bodies import Record
from leadferry.destinations.http.rules import (
    LONGEST_TEXT,
    AnswerRule,
    Body,
    Capture,
    Items,
    price_of,
)
from leadferry.destinations.http.transport import HttpAnswer
from leadferry.destinations.http.veil import Veil
from leadferry.errors import AuthenticationError, DeliveryError, DestinationBusyError, PermanentDeliveryError
from leadferry.exchange import LeadAnswer
from leadferry.states import Answer


@dataclass(frozen=True)
class Verdict:
    """What one answer says."""

    answers: tuple[LeadAnswer, ...] = ()
    """Lead by lead; RETRY among them."""
    untold: tuple[int, ...] = ()
    """Leads of which nobody knows whether the buyer took them."""
    error: DeliveryError | None = None
    """The buyer did not take the request, for a reason that is not the leads'."""


@dataclass(frozen=True)
class Judge:
    """Reads answers by the rules of one destination."""

    rules: Sequence[AnswerRule]
    capture: Capture
    items: Items | None
    where: str

    def judge(self, answer: HttpAnswer, records: Sequence[Record]) -> Verdict:
        """Say what an answer means for every lead in its request."""
        whole = Body(answer.text)
        ids = tuple(one.lead_id for one in records)
        parts = self.items.of(whole, ids) if self.items else dict.fromkeys(ids, whole)
        if parts:
            veil = Veil(records)
            told = [self._told(one, answer, parts[one], veil) for one in ids if one in parts]
            if None not in told:
                answers = tuple(one for one in told if one is not None)
                return Verdict(answers, untold=tuple(one for one in ids if one not in parts))
        return self._of_the_whole(answer, whole, records)

    def outcome(self, answer: HttpAnswer, body: Body) -> Answer | None:
        """Return what the first rule that fits says; None when none does."""
        return next((rule.then for rule in self.rules if rule.when.fits(answer.status, body)), None)

    def refusal(self, answer: HttpAnswer) -> DeliveryError | None:
        """Return the error for a status by which a request is not taken; None when the status speaks of the leads."""
        status = answer.status
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return PermanentDeliveryError(
                f"{self.where}: answers with a redirect (HTTP {status}), which is not followed",
                hint="Put the address that the buyer redirects to into the connection and the path",
            )
        kind = HTTP_STATUS.get(status)
        if kind is None:
            return None
        hint = (
            "Renew the secret in the Airflow connection, then deliver again"
            if kind is AuthenticationError
            else None
        )
        return kind(f"{self.where}: {SENTENCES[kind]} (HTTP {status})", hint=hint)

    def _told(self, lead_id: int, answer: HttpAnswer, part: Body, veil: Veil) -> LeadAnswer | None:
        """Return what an answer says to one lead; None where only its status can speak, and not of the lead."""
        outcome = self.outcome(answer, part)
        if outcome is None and (self.refusal(answer) or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR):
            return None
        message = self.capture.message.text(part) if self.capture.message else None
        if outcome is None:
            message = message or f"no rule fits the answer (HTTP {answer.status})"
        price = self.capture.price.text(part) if self.capture.price else None
        return LeadAnswer(
            lead_id=lead_id,
            outcome=outcome or Answer.REJECTED,
            buyer_id=self.capture.buyer_id.text(part) if self.capture.buyer_id else None,
            price=price_of(price),
            message=veil.hide(message)[:LONGEST_TEXT] if message else None,
        )

    def _of_the_whole(self, answer: HttpAnswer, whole: Body, records: Sequence[Record]) -> Verdict:
        """Judge an answer that does not speak of single leads: it can refuse all of them, but accept none."""
        ids = tuple(one.lead_id for one in records)
        outcome = self.outcome(answer, whole)
        if outcome is not None and outcome is not Answer.ACCEPTED:
            return Verdict(tuple(self._same(ids, outcome, answer, whole, Veil(records))))
        if outcome is None and (refusal := self.refusal(answer)):
            return Verdict(error=refusal)
        if outcome is None and HTTPStatus.BAD_REQUEST <= answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return Verdict(tuple(self._same(ids, Answer.REJECTED, answer, whole, Veil(records))))
        return Verdict(untold=ids)

    def _same(
        self, ids: Sequence[int], outcome: Answer, answer: HttpAnswer, whole: Body, veil: Veil
    ) -> list[LeadAnswer]:
        message = self.capture.message.text(whole) if self.capture.message else None
        told = veil.hide(message)[:LONGEST_TEXT] if message else f"HTTP {answer.status}"
        return [LeadAnswer(lead_id=one, outcome=outcome, message=told) for one in ids]


def busy(error: DeliveryError | None) -> bool:
    """Tell whether an error asks for another try soon."""
    return isinstance(error, DestinationBusyError)

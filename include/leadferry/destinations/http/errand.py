"""Brings the leads of one parcel to a buyer's API: which request goes when, and what is remembered of each.

The intent of a request is stored before it goes out and its answers after it came back, so another process can go on
where this one died. The requests' numbers and leads never change, because the records file never does.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from time import sleep
from typing import TYPE_CHECKING, TypeVar

from leadferry.destinations.http.bodies import Record
from leadferry.destinations.http.pace import Pace, retry_after
from leadferry.destinations.http.requests import Requests
from leadferry.destinations.http.transport import HttpAnswer, WireError
from leadferry.destinations.http.veil import Veil
from leadferry.destinations.http.verdict import Judge, Verdict
from leadferry.destinations.parcel import Parcel
from leadferry.errors import (
    DeliveryError,
    DestinationBusyError,
    LeadferryError,
    OutcomeUnknownError,
    TransferInterruptedError,
)
from leadferry.exchange import Answers, Intent, LeadAnswer, Reply, Standing
from leadferry.states import Answer, RequestState

if TYPE_CHECKING:
    from leadferry.destinations.http.keys import HttpKeys

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

_TRIES = 5
"""Of one request, in one try of the task; more tries are Airflow's."""
_FIRST_PAUSE_SECONDS = 1.0
"""Before a request is sent again to a buyer who did not say when; doubled each time."""
_LOOKED_UP_AT_ONCE = 1000
"""Requests of which the standing is read in one query."""
_TOLD_OF_PROGRESS = 10
"""How often the log tells of progress, in one try."""
_MANY_LEADS = 100
"""With fewer leads the log says nothing before the end."""
_SILENCES = 3
"""So many unanswered requests in a row mean that the buyer is not there: nothing more goes out."""


@dataclass
class Job:
    """One request, with the leads that still need an answer."""

    number: int
    records: tuple[Record, ...]
    tries: int = 0

    @property
    def lead_ids(self) -> tuple[int, ...]:
        """Its leads."""
        return tuple(one.lead_id for one in self.records)


@dataclass
class Errand:
    """One try to get every lead of a parcel answered."""

    destination: HttpKeys
    requests: Requests
    judge: Judge
    parcel: Parcel
    answers: Answers
    pace: Pace
    _again: deque[Job] = field(default_factory=deque)
    _stop: LeadferryError | None = None
    _waited: float = 0.0
    _in_doubt: int = 0
    _silent: int = 0
    _done: int = 0
    _told: int = 0

    def run(self) -> None:
        """Send until every lead is answered.

        Raises:
            DeliveryError: some leads are not; the next try sends only those.
            OutcomeUnknownError: of some nobody knows.
        """
        due = self._due()
        flying: dict[Future[HttpAnswer], Job] = {}
        ended: list[Reply] = []
        with ThreadPoolExecutor(self.destination.parallel, thread_name_prefix="request") as pool:
            while True:
                begun = self._next(due, room=self.destination.parallel - len(flying), idle=not flying)
                if ended or begun:
                    self.answers.advance(ended=ended, begun=[self._intent(one) for one in begun])
                flying |= {pool.submit(self.requests.send, one.records, self._key(one)): one for one in begun}
                if not flying:
                    break
                done, _ = wait(flying, timeout=self._patience(flying), return_when=FIRST_COMPLETED)
                ended = [self._ended(flying.pop(one), one) for one in done]
        self._conclude()

    def _conclude(self) -> None:
        if self._stop is not None:
            raise self._stop
        if self._in_doubt:
            raise OutcomeUnknownError(f"{self.judge.where}: {self._in_doubt} requests were not answered")

    # --- which request is next

    def _due(self) -> Iterator[Job]:
        """Yield the requests that are not answered yet, in their order; constant memory."""
        size = self.destination.chunk if self.destination.send == "chunk" else 1
        numbered = enumerate(_groups(read_records(self.parcel), size), start=1)
        for block in _groups(numbered, _LOOKED_UP_AT_ONCE):
            known = self.answers.standing(block[0][0], block[-1][0])
            for number, records in block:
                if (left := _left(records, known.get(number))) is not None:
                    yield Job(number, left)

    def _next(self, due: Iterator[Job], *, room: int, idle: bool) -> list[Job]:
        """Take the requests that may go now; with nothing under way, wait for the first one's turn."""
        begun: list[Job] = []
        while len(begun) < room and self._stop is None:
            delay = self.pace.delay()
            if delay and (begun or not idle):
                break
            job = self._again.popleft() if self._again else next(due, None)
            if job is None:
                break
            if delay:
                sleep(delay)
            self.pace.gone()
            job.tries += 1
            begun.append(job)
        return begun

    def _patience(self, flying: dict[Future[HttpAnswer], Job]) -> float | None:
        """Return how long to wait for an answer before the next request may go; None for as long as it takes."""
        has_room = len(flying) < self.destination.parallel and self._stop is None
        return self.pace.delay() or None if has_room else None

    def _intent(self, job: Job) -> Intent:
        return Intent(number=job.number, lead_ids=job.lead_ids, key=self._key(job))

    def _key(self, job: Job) -> str:
        return idempotency_key(self.parcel, job.lead_ids)

    # --- what became of it

    def _ended(self, job: Job, done: Future[HttpAnswer]) -> Reply:
        try:
            answer = done.result()
        except WireError as failed:
            return self._unanswered(job, failed)
        except LeadferryError as error:
            self._stop = self._stop or error  # before anything was sent: a template, a token
            return Reply(
                number=job.number, state=RequestState.OPEN, lead_ids=job.lead_ids, error_code=error.code
            )
        self._silent = 0
        return self._answered(job, answer, self.judge.judge(answer, job.records))

    def _unanswered(self, job: Job, failed: WireError) -> Reply:
        """Nothing came back: what was not sent, or may be repeated, stays open; the rest is for a person."""
        self._silent += 1
        if not failed.perhaps_taken:
            self._stop = self._stop or failed.error
        elif self.destination.idempotent and job.tries < _TRIES:
            self._later(job, after=None, error=failed.error)
        elif self.destination.idempotent or self._silent >= _SILENCES:
            self._stop = self._stop or _interrupted(failed.error)
        state = self._state_of_doubt() if failed.perhaps_taken else RequestState.OPEN
        return Reply(number=job.number, state=state, lead_ids=job.lead_ids, error_code=failed.error.code)

    def _state_of_doubt(self) -> RequestState:
        if self.destination.idempotent:
            return RequestState.OPEN
        self._in_doubt += 1
        return RequestState.UNKNOWN

    def _answered(self, job: Job, answer: HttpAnswer, verdict: Verdict) -> Reply:
        again = {one.lead_id for one in verdict.answers if one.outcome is Answer.RETRY}
        if verdict.error is not None:
            again = set(job.lead_ids)
        state, left = self._after(job, answer, verdict, again)
        self._progress(len(job.records) - (len(left) if state is not RequestState.ANSWERED else 0))
        return Reply(
            number=job.number,
            state=state,
            lead_ids=left,
            answers=verdict.answers or _told(verdict.error, job),
            status_code=answer.status,
            latency_ms=answer.latency_ms,
            excerpt=Veil(job.records).excerpt(answer.text),
            error_code=verdict.error.code if verdict.error else None,
        )

    def _progress(self, answered: int) -> None:
        """Say now and then in the log how far it has come."""
        self._done += answered
        leads = self.parcel.file.rows
        if self._done - self._told >= max(leads // _TOLD_OF_PROGRESS, 1) and leads >= _MANY_LEADS:
            self._told = self._done
            _log.info("%s: %s of %s leads answered", self.judge.where, self._done, leads)

    def _after(
        self, job: Job, answer: HttpAnswer, verdict: Verdict, again: set[int]
    ) -> tuple[RequestState, tuple[int, ...]]:
        """Say what is left to do for a request, and see to it."""
        untold = set(verdict.untold)
        if untold and not self.destination.idempotent:
            # Those that the buyer wants again go with them: a person decides first.
            return self._state_of_doubt(), tuple(one for one in job.lead_ids if one in again | untold)
        left = tuple(one for one in job.records if one.lead_id in again | untold)
        if not left:
            return RequestState.ANSWERED, job.lead_ids
        error = verdict.error or DestinationBusyError(f"{self.judge.where}: the buyer could not decide yet")
        if error.retry:
            self._later(
                Job(job.number, left, job.tries),
                after=retry_after(answer.headers.get("Retry-After")),
                error=error,
            )
        else:
            self._stop = self._stop or error
        return RequestState.OPEN, tuple(one.lead_id for one in left)

    def _later(self, job: Job, *, after: float | None, error: DeliveryError) -> None:
        """Send a request again after a pause for all, or leave it to the next try of the task."""
        pause = _FIRST_PAUSE_SECONDS * 2 ** (job.tries - 1) if after is None else after
        pause = max(pause, self.pace.delay())
        self._waited += pause - min(pause, self.pace.delay())
        if job.tries >= _TRIES or self._waited > self.destination.wait_at_most.total_seconds():
            self._stop = self._stop or error
            return
        self.pace.pause(pause)
        self._again.append(job)


def _groups(items: Iterator[_T], size: int) -> Iterator[tuple[_T, ...]]:
    while group := tuple(islice(items, size)):
        yield group


def _left(records: tuple[Record, ...], standing: Standing | None) -> tuple[Record, ...] | None:
    """Return what of a request is to be sent; None when nothing is."""
    if standing is None:
        return records
    if standing.state is not RequestState.OPEN:
        return None
    return tuple(one for one in records if one.lead_id in set(standing.lead_ids))


def _told(error: DeliveryError | None, job: Job) -> tuple[LeadAnswer, ...]:
    """Let the leads' history show a refusal that was not theirs."""
    if error is None:
        return ()
    return tuple(
        LeadAnswer(lead_id=one, outcome=Answer.RETRY, message=f"not taken: {error.code}")
        for one in job.lead_ids
    )


def _interrupted(error: DeliveryError) -> DeliveryError:
    return error if error.retry else TransferInterruptedError(error.what)


def idempotency_key(parcel: Parcel, lead_ids: Sequence[int]) -> str:
    """Return the key of a request: the same for the same leads of the same parcel, whoever asks and when."""
    told = json.dumps([parcel.key, *lead_ids])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def read_records(parcel: Parcel) -> Iterator[Record]:
    """Read the parcel's leads, one at a time, and check at the end that they are what was rendered."""
    return (Record(lead_id, fields) for lead_id, fields in parcel.file.records())

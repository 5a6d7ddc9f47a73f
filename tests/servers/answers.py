"""Remembers requests and answers without a store, for tests of one destination alone."""

from leadferry.exchange import Standing
from leadferry.states import Answer, RequestState


class Memory:
    """What the store does, in memory; and the order of everything that was written."""

    def __init__(self):
        self.requests = {}
        self.given = {}
        self.log = []

    def standing(self, first, last):
        return {number: one for number, one in self.requests.items() if first <= number <= last}

    def advance(self, *, ended=(), begun=()):
        for one in ended:
            self.requests[one.number] = Standing(state=one.state, lead_ids=one.lead_ids)
            self.log.append(("ended", one))
            self.given |= {told.lead_id: told for told in one.answers if told.outcome is not Answer.RETRY}
        for one in begun:
            self.requests[one.number] = Standing(state=RequestState.SENDING, lead_ids=one.lead_ids)
            self.log.append(("begun", one))

    def settle_lost(self, state):
        for number, one in self.requests.items():
            if one.state is RequestState.SENDING:
                self.requests[number] = Standing(state=state, lead_ids=one.lead_ids)
        return sum(one.state is RequestState.UNKNOWN for one in self.requests.values())

    def counts(self):
        outcomes = [one.outcome for one in self.given.values()]
        return {one: outcomes.count(one) for one in set(outcomes)}

    @property
    def ended(self):
        return [one for what, one in self.log if what == "ended"]

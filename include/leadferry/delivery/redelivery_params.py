"""What a person may ask of the DAG `redeliver_leads`, of its REST conf and of `leadferry redeliver`: one model for all."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    field_validator,
    model_validator,
)

from leadferry.errors import BatchConfigError
from leadferry.mapping.rules import Condition
from leadferry.states import LeadStanding

Selection = Literal["leads", "query", "file", "failed_since", "all"]

_FILTERS = ("flow", "received_from", "received_to", "status", "rule", "where", "delivery_id")


def _number(value: Any) -> Any:
    """Take a number that the form sends as text; anything else is left to the check."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() else value


Id = Annotated[int, Field(ge=1, strict=True), BeforeValidator(_number)]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
Status = Literal["waiting", "delivered", "rejected", "duplicate", "incomplete", "withheld", "failed", "new"]


class Redeliver(BaseModel):
    """The parameters, validated again inside the first task: Airflow accepts unknown names without a word."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch: Text = Field(
        title="Batch", description="Id of the batch whose settings the leads are delivered with."
    )
    destination: Text = Field(
        title="Destination",
        description="Id of the one destination of the batch that gets them; the others get nothing.",
    )
    lead_ids: list[Id] | None = Field(
        default=None,
        min_length=1,
        title="Lead ids",
        description="The leads to deliver, one id a line.",
    )
    reason: Text | None = Field(
        default=None,
        title="Reason",
        description="Why; stored with your name. Edits are not made without one.",
    )
    dry_run: StrictBool = Field(
        default=False,
        title="Dry run",
        description="Only show in the log of the task claim what would go and what would not; nothing is changed or sent.",
    )
    selection: Selection | None = Field(
        default=None,
        title="Selection",
        description="`all` for every lead that the batch ever had; otherwise what is filled in decides.",
    )
    failed_since: datetime | None = Field(
        default=None,
        title="All that failed since",
        description="Leads of deliveries that ended from this moment on and did not arrive at the destination.",
    )
    flow: Text | None = Field(default=None, title="Flow", description="Only leads of this flow.")
    received_from: datetime | None = Field(
        default=None, title="Received from", description="Only leads received from this moment on."
    )
    received_to: datetime | None = Field(
        default=None, title="Received before", description="Only leads received before this moment."
    )
    status: list[Status] | None = Field(
        default=None,
        min_length=1,
        title="Status",
        description="Only leads that stand like this with the destination now.",
    )
    rule: Text | None = Field(
        default=None, title="Withheld by", description="Only leads that were withheld last by this rule."
    )
    where: list[Condition] | None = Field(
        default=None,
        min_length=1,
        title="Field conditions",
        description="Conditions on fields as in a batch's rules; all must be met.",
    )
    delivery_id: Id | None = Field(
        default=None, title="Delivery", description="Only leads of this earlier delivery."
    )
    file_id: Id | None = Field(
        default=None,
        title="Stored file",
        description="The leads of this file; `leadferry dispatch list DELIVERY` tells its id.",
    )
    as_sent: StrictBool = Field(
        default=False,
        title="As sent",
        description="Send the stored bytes of the file. Otherwise the leads are written anew, with today's settings.",
    )
    count: Annotated[int, Field(ge=1, strict=True), BeforeValidator(_number)] | None = Field(
        default=None, title="How many", description="Most leads; all of the selection when empty."
    )
    order: Literal["oldest", "newest", "random"] = Field(
        default="oldest",
        title="Which first",
        description="Which of the selection go first, and first in the file.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True), BeforeValidator(_number)] | None = Field(
        default=None,
        title="Seed",
        description="With `random`: the same number draws the same leads. One is drawn and stored when empty.",
    )
    include_delivered: StrictBool = Field(
        default=False,
        title="Also what was delivered there",
        description="Send another copy of leads that the destination has already.",
    )
    skip_rules: StrictBool = Field(
        default=False,
        title="Skip the rules",
        description="Also leads that do not meet the batch's rules, checks or area; the ledger names the rule. The recipient's own rules and consent count all the same.",
    )
    skip_dedupe: StrictBool = Field(
        default=False,
        title="Skip the search for duplicates",
        description="Also leads that are duplicates of others by the batch's `dedupe`.",
    )
    override_window: StrictBool = Field(
        default=False,
        title="Outside business hours",
        description="Send at once, also outside the recipient's business hours, in a blackout and in leads' quiet hours.",
    )
    assign_others: StrictBool = Field(
        default=False,
        title="Assign other leads",
        description="Also leads that never were this batch's, because it does not listen to their flow.",
    )
    edits: dict[str, Any] | None = Field(
        default=None,
        title="Edits",
        description="Field → value for all leads, or lead id → {field → value}. Needs a reason.",
    )
    persist_edits: StrictBool = Field(
        default=False,
        title="Keep the edits",
        description="Change the leads for good. Otherwise only this delivery sees the edits.",
    )
    mark: StrictBool = Field(
        default=True,
        title="Mark it",
        description="Put `_R1`, `_R2` … into file names and `[R1]` behind subjects when leads go there again.",
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_not_said(cls, data: Any) -> Any:
        """Airflow's form sends what is left empty as null, an empty list or an empty text."""
        if not isinstance(data, Mapping):
            return data
        return {name: value for name, value in data.items() if value not in (None, "", [], {})}

    @field_validator("edits")
    @classmethod
    def _changes_something(cls, edits: dict[str, Any] | None) -> dict[str, Any] | None:
        for name, value in (edits or {}).items():
            if name.strip() != name or not name:
                raise ValueError("a field needs a name without white space around it")
            if name.isdecimal() and not isinstance(value, Mapping):
                raise ValueError(f"{name} is a lead's id; behind it stands {{field: value}}")
            if name in _OWN:
                raise ValueError(f"{name!r} is the lead's own and cannot be edited; only its fields can")
        return edits

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> list[str]:
        found = []
        means = self.means
        if len(means) > 1:
            found.append(f"say either {' or '.join(means)}, not both: each is a selection of its own")
        if not means and self.selection is None:
            told = "lead_ids, file_id, failed_since, a filter such as status, or selection: all"
            found.append(f"lead_ids: nothing says which leads; give {told}")
        if self.selection not in (None, *self.kinds) and not (self.selection == "all" and not means):
            found.append(
                f"selection: {self.selection!r} needs its field, but there is {', '.join(means) or 'none'}"
            )
        if self.as_sent and self.file_id is None:
            found.append("as_sent: the stored bytes of which file? give file_id")
        if self.as_sent and (self.edits or self.count or self.skip_rules or self.assign_others):
            found.append(
                "as_sent: a stored file goes as it is; leave out edits, count, skip_rules and assign_others"
            )
        filters = [name for name in _FILTERS if getattr(self, name) is not None]
        if self.as_sent and filters:
            found.append(f"as_sent: a stored file goes whole; leave out {', '.join(filters)}")
        if self.edits and not self.reason:
            found.append("reason: edits are not made without one")
        if self.persist_edits and not self.edits:
            found.append("persist_edits: there are no edits to keep")
        if self.seed is not None and self.order != "random":
            found.append("seed: goes with order: random")
        return found

    @property
    def means(self) -> list[str]:
        """The fields that select leads, those that only narrow down what `lead_ids` or another names not counted."""
        exclusive = [
            name for name in ("lead_ids", "file_id", "failed_since") if getattr(self, name) is not None
        ]
        if exclusive:
            return exclusive
        return ["a filter"] if any(getattr(self, name) is not None for name in _FILTERS) else []

    @property
    def kinds(self) -> list[str]:
        """What `selection` may say, by what is filled in."""
        names = {"lead_ids": "leads", "file_id": "file", "failed_since": "failed_since", "a filter": "query"}
        return [names[one] for one in self.means]

    @property
    def edits_of_all(self) -> dict[str, Any]:
        """Field → value for every lead of the selection."""
        return {name: value for name, value in (self.edits or {}).items() if not name.isdecimal()}

    @property
    def edits_by_lead(self) -> dict[int, dict[str, Any]]:
        """Lead id → field → value."""
        return {int(name): dict(value) for name, value in (self.edits or {}).items() if name.isdecimal()}

    def for_the_record(self) -> dict[str, Any]:
        """Return what was asked for, without values of leads: of edits only the fields, of conditions only that there are."""
        told = self.model_dump(mode="json", exclude_defaults=True, exclude={"edits", "where", "reason"})
        if self.edits:
            fields = set(self.edits_of_all).union(*self.edits_by_lead.values())
            told["edits"] = sorted(fields)
        if self.where:
            told["where"] = len(self.where)
        return told

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> Redeliver:
        """Validate what came from the trigger form, the REST API or the command line.

        Raises:
            BatchConfigError: a name is unknown or a value is not allowed; says which, and what is.
        """
        try:
            return cls.model_validate(dict(params))
        except ValidationError as error:
            # A message may stand for itself, but never the value: conditions and edits hold leads' data.
            problems = "; ".join(_told(one["loc"], one["msg"]) for one in error.errors(include_input=False))
            allowed = ", ".join(cls.model_fields)
            raise BatchConfigError(
                f"The run's parameters cannot be meant: {problems}",
                hint=f"Nothing was claimed. Trigger the DAG again; the parameters are {allowed}",
            ) from None


_OWN = frozenset({"id", "flow", "received_at"})


def _told(location: tuple[int | str, ...], message: str) -> str:
    where = ".".join(str(part) for part in location)
    message = message.removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


STANDINGS = {one.value: one for one in LeadStanding}
"""What `status` names."""

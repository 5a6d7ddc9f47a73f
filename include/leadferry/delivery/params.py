"""What a person may ask of a batch's DAG when triggering it by hand: deliver pending leads now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leadferry.errors import BatchConfigError
from leadferry.units import MOST_LEADS


class DeliverNow(BaseModel):
    """The parameters, validated again inside the first task: Airflow accepts unknown names without a word."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    limit: int | None = Field(
        default=None,
        ge=1,
        le=MOST_LEADS,
        title="Limit",
        description="Most leads to deliver. Empty: the batch's own limit.",
    )
    order: Literal["oldest", "newest", "random"] | None = Field(
        default=None, title="Order", description="Which leads go first. Empty: the batch's own order."
    )
    ignore_minimum: bool = Field(
        default=False,
        title="Ignore the minimum",
        description="Depart although fewer leads wait than the batch's minimum.",
    )
    ignore_maximum: bool = Field(
        default=False,
        title="Ignore the maximum",
        description="Depart although more leads wait than the batch's maximum.",
    )
    override_window: bool = Field(
        default=False,
        title="Outside business hours",
        description="Send at once, also outside the recipient's business hours and in a blackout.",
    )
    keep_for_next: bool = Field(
        default=False,
        title="Keep for the next delivery",
        description="Also leave the leads in the queue, so that the next scheduled delivery contains them again.",
    )

    reason: str | None = Field(
        default=None,
        max_length=500,
        title="Reason",
        description="Why it is triggered by hand; stays in the audit with your name. No lead's data.",
    )

    test: bool = Field(
        default=False,
        title="Test",
        description="Deliver two made-up leads in files named TEST_…; the queue is not touched.",
    )

    @classmethod
    def parse(cls, params: Mapping[str, Any]) -> DeliverNow:
        """Validate what came from the trigger form or the REST API.

        Raises:
            BatchConfigError: a name is unknown or a value is not allowed; says which, and what is.
        """
        try:
            return cls.model_validate(dict(params))
        except ValidationError as error:
            problems = "; ".join(f"{_path(one['loc'])}: {one['msg']}" for one in error.errors())
            allowed = ", ".join(cls.model_fields)
            raise BatchConfigError(
                f"The run's parameters cannot be meant: {problems}",
                hint=f"Nothing was claimed. Trigger the DAG again; the parameters are {allowed}",
            ) from None


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "parameters"


FORM: dict[str, dict[str, Any]] = {
    "limit": {"default": None, "type": ["null", "integer"], "minimum": 1, "maximum": MOST_LEADS},
    "order": {"default": None, "type": ["null", "string"], "enum": [None, "oldest", "newest", "random"]},
    "ignore_minimum": {"default": False, "type": "boolean"},
    "ignore_maximum": {"default": False, "type": "boolean"},
    "override_window": {"default": False, "type": "boolean"},
    "keep_for_next": {"default": False, "type": "boolean"},
    "reason": {"default": None, "type": ["null", "string"]},
    "test": {"default": False, "type": "boolean"},
}
"""The fields of Airflow's trigger form, as JSON Schema that its form understands (no `anyOf`)."""

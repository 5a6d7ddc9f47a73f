"""The keys of an HTTP destination in the batch file, and which of them go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from leadferry.destinations.base import AllowsPlaintext
from leadferry.destinations.http.auth import Auth, HeaderName
from leadferry.destinations.http.bodies import FileBody, JsonBody, LeadsBody, MultipartBody, RawBody
from leadferry.destinations.http.rules import AnswerRule, Capture, Items
from leadferry.errors import BatchConfigError
from leadferry.states import Answer
from leadferry.templates import compile_template
from leadferry.units import Duration

_NOT_FROM_HERE = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
    }
)
"""Headers that hold secrets, which stand in the connection, or that follow from the body."""


class HttpKeys(AllowsPlaintext):
    """What a batch file says of a buyer's API."""

    connection_kind: ClassVar[str] = "http"

    type: Literal["http"] = "http"
    connection: str = Field(min_length=1, description="Airflow connection of type http.")
    send: Literal["lead", "chunk", "file"] = Field(
        default="lead", description="One lead in a request, several, or each file of the batch."
    )
    chunk: int = Field(
        default=100, ge=1, le=10_000, description="Most leads in a request, with `send: chunk`."
    )
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    path: str = Field(default="/", description="Path on the connection's host; a template.")
    query: dict[str, str] = Field(default={}, description="Parameters behind the path; templates.")
    headers: dict[HeaderName, str] = Field(
        default={}, description="More headers; templates. Secrets come from the connection, by `auth`."
    )
    auth: Auth | None = Field(default=None, description="How requests prove who sends them.")
    body: LeadsBody | None = Field(default=None, description="How leads are written; JSON when left out.")
    upload: FileBody | None = Field(
        default=None, description="With `send: file`: `raw` (when left out) or as `multipart` form."
    )
    answers: list[AnswerRule] = Field(
        min_length=1,
        description="What the buyer's answers mean; the first that fits decides, none is no yes.",
    )
    capture: Capture = Field(default=Capture(), description="What is kept of the answer to a lead.")
    items: Items | None = Field(default=None, description="Where an answer to a chunk speaks of each lead.")
    idempotent: bool = Field(
        default=False,
        description="The buyer tells a repeated request by its key from a new one. Without it, leads of a request"
        " that was not answered wait for a person.",
    )
    idempotency_header: HeaderName = Field(
        default="Idempotency-Key", description="Header with the request's key."
    )
    timeout: float = Field(default=30, gt=0, le=3600, description="Seconds that the server may stay silent.")
    requests_per_second: Annotated[float, Field(gt=0, le=10_000)] | None = Field(
        default=None, description="Never send faster than this."
    )
    parallel: int = Field(default=1, ge=1, le=64, description="Most requests under way at a time.")
    wait_at_most: Duration = Field(
        default=timedelta(minutes=5),
        description="How long one try waits in all when the buyer asks to come back later (429, 503, Retry-After).",
    )

    @model_validator(mode="after")
    def _keys_fit_what_is_sent(self) -> Self:
        if self.send == "file" and self.body is not None:
            raise ValueError("body is for leads; with send: file, say how under upload")
        if self.send != "file" and self.upload is not None:
            raise ValueError("upload is for files; with leads, say how under body")
        if self.send != "chunk" and self.items is not None:
            raise ValueError("items is for send: chunk; with one lead in a request the answer is the lead's")
        if self.send == "chunk" and self.body is not None and self.body.type == "form":
            raise ValueError("a form holds one lead; use send: lead, or another body")
        if not any(rule.then is Answer.ACCEPTED for rule in self.answers):
            raise ValueError(
                "answers has no rule with `then: accepted`, so no lead would ever count as delivered"
            )
        return self

    @model_validator(mode="after")
    def _templates_can_be_filled_in(self) -> Self:
        one_lead = ["fields", "lead_id"] if self.send == "lead" else []
        places = {"path": self.path, **_named("query", self.query), **_named("headers", self.headers)}
        for key, text in places.items():
            _check(key, text, free=one_lead)
        if self.body is not None and self.body.type == "template":
            _check("body.text", self.body.text, free=one_lead or ["leads"])
        if "://" in self.path:
            raise ValueError("path: the host stands in the connection, only the path here")
        if forbidden := [name for name in self.headers if name.lower() in _NOT_FROM_HERE]:
            raise ValueError(f"headers: {forbidden[0]} is set from the connection and the body")
        return self

    @property
    def takes(self) -> Literal["files", "leads"]:
        """The batch's files, or the mapped leads."""
        return "files" if self.send == "file" else "leads"

    @property
    def where(self) -> str:
        """The connection and the path, as written."""
        return f"{self.via}, {self.method} {self.path}"

    @property
    def leads_body(self) -> LeadsBody:
        """How leads are written."""
        return self.body or JsonBody()

    @property
    def file_body(self) -> RawBody | MultipartBody:
        """How a file is written."""
        return self.upload or RawBody()

    def problems(self, columns: Sequence[str]) -> list[str]:
        """Labels that the body cannot have."""
        return [] if self.send == "file" else self.leads_body.problems(columns)


def _named(key: str, values: Mapping[str, str]) -> dict[str, str]:
    return {f"{key}.{name}": text for name, text in values.items()}


def _check(key: str, text: str, *, free: Sequence[str]) -> None:
    try:
        compile_template(text, free=free)
    except BatchConfigError as error:
        raise ValueError(f"{key}: {error}") from None

"""Puts the requests of one parcel together and sends them; used by several threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from leadferry.destinations.base import with_texts
from leadferry.destinations.http.auth import Signer
from leadferry.destinations.http.bodies import Payload, Record, template_variables
from leadferry.destinations.http.transport import HttpAnswer, Wire, with_query
from leadferry.destinations.parcel import Parcel
from leadferry.errors import PermanentDeliveryError, RenderError
from leadferry.templates import render

if TYPE_CHECKING:
    from leadferry.destinations.http.keys import HttpKeys


class Requests:
    """Sends leads or a file as the destination's keys say."""

    def __init__(self, destination: HttpKeys, wire: Wire, signer: Signer | None, parcel: Parcel) -> None:
        self._destination = destination
        self._wire = wire
        self._signer = signer
        self._parcel = parcel

    def send(self, records: Sequence[Record], key: str) -> HttpAnswer:
        """Send leads in one request.

        Raises:
            WireError: there was no answer.
            DeliveryError: nothing was sent: a template cannot be filled in, or there is no token.
        """
        chunk = self._destination.send == "chunk"
        variables = {**self._parcel.variables, **template_variables(records, chunk=chunk)}
        payload = self._destination.leads_body.build(records, self._parcel.variables, chunk=chunk)
        return self._send(payload, key, variables)

    def send_file(self, key: str) -> HttpAnswer:
        """Send the parcel's file in one request; raises as `send` does."""
        payload = self._destination.file_body.of_file(
            self._parcel.file, boundary=f"leadferry-{self._parcel.mark}"
        )
        return self._send(payload, key, self._parcel.variables)

    def _send(self, payload: Payload, key: str, variables: Mapping[str, Any]) -> HttpAnswer:
        url, headers = self._url(variables), self._headers(variables, key)
        proof = self._signer.headers(payload) if self._signer else {}
        answer = self._wire.send(self._destination.method, url, payload=payload, headers={**headers, **proof})
        if (
            answer.status == HTTPStatus.UNAUTHORIZED
            and self._signer is not None
            and self._signer.renew(proof)
        ):
            # A token may end before its time; by its 401 the buyer did not take the request.
            proof = self._signer.headers(payload)
            answer = self._wire.send(
                self._destination.method, url, payload=payload, headers={**headers, **proof}
            )
        return answer

    def _url(self, variables: Mapping[str, Any]) -> str:
        path = self._filled(
            "path", self._destination.path, with_texts(variables, lambda value: quote(value, safe=""))
        )
        query = {
            name: self._filled(f"query.{name}", text, variables)
            for name, text in self._destination.query.items()
        }
        return with_query(self._wire.address.url(quote(path, safe="/%?=&;:@!$'()*+,~-._")), query)

    def _headers(self, variables: Mapping[str, Any], key: str) -> dict[str, str]:
        found = {
            name: self._filled(f"headers.{name}", text, variables).strip()
            for name, text in self._destination.headers.items()
        }
        for name, value in found.items():
            if not value.isprintable():
                raise self._unusable(
                    f"headers.{name}", "has a line break or another character that no header may have"
                )
        marks = {"X-Leadferry-Test": "true"} if self._parcel.is_test else {}
        if self._parcel.redelivery:
            marks["X-Leadferry-Redelivery"] = self._parcel.redelivery
        return {
            "Accept": "application/json, */*;q=0.5",
            **found,
            **marks,
            self._destination.idempotency_header: key,
        }

    def _filled(self, key: str, text: str, variables: Mapping[str, Any]) -> str:
        try:
            return render(text, variables)
        except RenderError:
            # Its text may hold what was asked for, which may be a value.
            raise self._unusable(key, "asks for something that does not exist") from None

    def _unusable(self, key: str, what: str) -> PermanentDeliveryError:
        return PermanentDeliveryError(
            f"{self._destination.via}: the template {key} {what}",
            hint="Correct it in the batch file; this request was not sent",
        )

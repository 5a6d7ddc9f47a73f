"""How a request proves who sends it. All secrets come from the Airflow connection; the batch file names only the way."""

from __future__ import annotations

import abc
import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field

from leadferry.destinations.http.bodies import Payload, of_bytes
from leadferry.destinations.http.json_path import MISSING, JsonPath, value_at
from leadferry.errors import AuthenticationError, DestinationBusyError, PermanentDeliveryError
from leadferry.units import Duration

_EARLY_SECONDS = 30
"""A token is renewed this long before it ends, so that it does not end on the way."""

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)]


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What the Airflow connection holds; never shown."""

    connection: str
    login: str = field(repr=False)
    password: str = field(repr=False)
    extra: Mapping[str, Any] = field(repr=False)

    def secret(self, name: str | None = None) -> str:
        """Return the password, or a text of the extra.

        Raises:
            AuthenticationError: there is none.
        """
        found = str(self.extra.get(name, "")) if name else self.password
        if not found:
            what = f"has no {name!r} in its extra" if name else "has no password"
            raise AuthenticationError(f"http connection '{self.connection}' {what}")
        return found


@dataclass(frozen=True)
class Answered:
    """An HTTP answer as authentication needs it."""

    status: int
    text: str


class Post(Protocol):
    """Sends one request to the buyer's host; redirects are not followed."""

    def __call__(self, url: str, *, payload: Payload, headers: Mapping[str, str]) -> Answered:
        """POST; `url` is a path on the connection's host, or an address of its own."""


class Signer(abc.ABC):
    """Adds to a request what proves who sends it; used by several threads."""

    @abc.abstractmethod
    def headers(self, payload: Payload) -> dict[str, str]:
        """Return the headers for one sending of this body."""

    def renew(self, used: Mapping[str, str]) -> bool:  # noqa: ARG002  (most have nothing to renew)
        """Get new credentials after a 401 to a request with these headers; tells whether there are any."""
        return False


class Fixed(Signer):
    """The same headers every time."""

    def __init__(self, headers: dict[str, str]) -> None:
        self._headers = headers

    def headers(self, payload: Payload) -> dict[str, str]:  # noqa: ARG002
        """Return them."""
        return self._headers


class Token(Signer):
    """A token that is fetched first, kept while it lives, and fetched anew when the buyer refuses it."""

    def __init__(self, fetch: Callable[[], tuple[str, float | None]], *, header: str, prefix: str) -> None:
        self._fetch = fetch
        self._header, self._prefix = header, prefix
        self._lock = threading.Lock()
        self._value: str | None = None
        self._ends_at = float("inf")

    def headers(self, payload: Payload) -> dict[str, str]:  # noqa: ARG002
        """Return the token, fetched if need be."""
        with self._lock:
            if self._value is None or time.monotonic() >= self._ends_at:
                token, seconds = self._fetch()
                _mask(token)
                self._value = f"{self._prefix}{token}"
                self._ends_at = time.monotonic() + (seconds - _EARLY_SECONDS if seconds else float("inf"))
            return {self._header: self._value}

    def renew(self, used: Mapping[str, str]) -> bool:
        """Drop the token if it is still the refused one; another thread may have been faster."""
        with self._lock:
            if self._value == used.get(self._header):
                self._value = None
        return True


def _mask(token: str) -> None:
    """Tell Airflow's log that this text is a secret."""
    from airflow.sdk.log import mask_secret

    mask_secret(token)


class _Auth(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Basic(_Auth):
    """The connection's login and password in every request."""

    type: Literal["basic"] = "basic"

    def signer(self, credentials: Credentials, post: Post) -> Signer:  # noqa: ARG002
        """Return what signs requests."""
        return Fixed({"Authorization": _basic(credentials.login, credentials.secret())})


def _basic(login: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{login}:{password}".encode()).decode()


class _OneSecret(_Auth):
    from_extra: str | None = Field(
        default=None, min_length=1, description="Name in the connection's extra; its password when left out."
    )


class Bearer(_OneSecret):
    """A fixed token in every request."""

    type: Literal["bearer"] = "bearer"

    def signer(self, credentials: Credentials, post: Post) -> Signer:  # noqa: ARG002
        """Return what signs requests."""
        return Fixed({"Authorization": f"Bearer {credentials.secret(self.from_extra)}"})


class ApiKey(_OneSecret):
    """A key in a header of the buyer's choice."""

    type: Literal["api_key"] = "api_key"
    header: HeaderName = Field(default="X-Api-Key", description="Name of the header.")

    def signer(self, credentials: Credentials, post: Post) -> Signer:  # noqa: ARG002
        """Return what signs requests."""
        return Fixed({self.header: credentials.secret(self.from_extra)})


class OAuth2(_Auth):
    """OAuth 2 client credentials (RFC 6749, 4.4): login is the client's id, password its secret."""

    type: Literal["oauth2"] = "oauth2"
    token_url: str = Field(
        min_length=1, description="Where tokens are given: a path on the host, or an https address."
    )
    scope: str | None = None
    audience: str | None = None
    client_in: Literal["header", "body"] = Field(
        default="header", description="Whether the client's id and secret go as Basic or in the form."
    )

    def signer(self, credentials: Credentials, post: Post) -> Signer:
        """Return what signs requests; nothing is fetched yet."""
        return Token(lambda: self._fetch(credentials, post), header="Authorization", prefix="Bearer ")

    def _fetch(self, credentials: Credentials, post: Post) -> tuple[str, float | None]:
        form = {"grant_type": "client_credentials", "scope": self.scope, "audience": self.audience}
        headers = {"Accept": "application/json"}
        if self.client_in == "body":
            form |= {"client_id": credentials.login, "client_secret": credentials.secret()}
        else:
            # RFC 6749, 2.3.1: both are form-encoded before they are put together.
            headers["Authorization"] = _basic(quote(credentials.login), quote(credentials.secret()))
        body = urlencode({name: value for name, value in form.items() if value is not None})
        payload = of_bytes("application/x-www-form-urlencoded", body.encode())
        answer = _granted(post(self.token_url, payload=payload, headers=headers), credentials)
        seconds = value_at("$.expires_in", answer)
        return _token_in(answer, "$.access_token", credentials), _seconds(seconds)


class LoginToken(_Auth):
    """Two steps: log in with the connection's login and password, then send the token that was answered."""

    type: Literal["login"] = "login"
    path: str = Field(min_length=1, description="Where to log in: a path on the host, or an https address.")
    body: Literal["json", "form"] = "json"
    login_key: str = Field(default="username", min_length=1, description="Name of the login in the body.")
    password_key: str = Field(
        default="password", min_length=1, description="Name of the password in the body."
    )
    token_at: JsonPath = Field(default="$.token", description="Where the token stands in the answer.")
    header: HeaderName = Field(default="Authorization", description="Header in which the token is sent.")
    prefix: str = Field(default="Bearer ", description="What stands before the token in the header.")
    valid_for: Duration | None = Field(
        default=None, description="How long a token lives; when left out, until the buyer answers 401."
    )

    def signer(self, credentials: Credentials, post: Post) -> Signer:
        """Return what signs requests; nothing is fetched yet."""
        return Token(lambda: self._fetch(credentials, post), header=self.header, prefix=self.prefix)

    def _fetch(self, credentials: Credentials, post: Post) -> tuple[str, float | None]:
        values = {self.login_key: credentials.login, self.password_key: credentials.secret()}
        payload = (
            of_bytes("application/json", json.dumps(values).encode())
            if self.body == "json"
            else of_bytes("application/x-www-form-urlencoded", urlencode(values).encode())
        )
        answer = _granted(
            post(self.path, payload=payload, headers={"Accept": "application/json"}), credentials
        )
        life = self.valid_for.total_seconds() if isinstance(self.valid_for, timedelta) else None
        return _token_in(answer, self.token_at, credentials), life


_REFUSED = frozenset({400, 401, 403})
_TRY_AGAIN_FROM = 500
_OK = range(200, 300)


def _granted(answer: Answered, credentials: Credentials) -> Any:
    where = f"http connection '{credentials.connection}': the login"
    if answer.status in _REFUSED:
        raise AuthenticationError(f"{where} was refused (HTTP {answer.status})")
    if answer.status >= _TRY_AGAIN_FROM or answer.status == 429:  # noqa: PLR2004  (too many requests)
        raise DestinationBusyError(f"{where} was not answered (HTTP {answer.status})")
    if answer.status not in _OK:
        raise PermanentDeliveryError(
            f"{where} got HTTP {answer.status}", hint="Correct the login's address in the batch file"
        )
    try:
        return json.loads(answer.text)
    except ValueError:
        raise PermanentDeliveryError(f"{where} was not answered with JSON", hint=_LOOK_AT_THE_LOGIN) from None


_LOOK_AT_THE_LOGIN = "Compare the login in the batch file with the buyer's documentation; no lead was sent"


def _token_in(answer: Any, path: str, credentials: Credentials) -> str:
    token = value_at(path, answer)
    if token is MISSING or not isinstance(token, str) or not token.isprintable():
        raise PermanentDeliveryError(
            f"http connection '{credentials.connection}': the login's answer has no token at {path}",
            hint=_LOOK_AT_THE_LOGIN,
        )
    return token


def _seconds(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


class Hmac(_OneSecret):
    """A signature over the time and the body, so that nobody can change a request or send it again later."""

    type: Literal["hmac"] = "hmac"
    algorithm: Literal["sha256", "sha512"] = "sha256"
    header: HeaderName = Field(default="X-Signature", description="Header with the signature.")
    prefix: str = Field(default="sha256=", description="What stands before the signature.")
    encoding: Literal["hex", "base64"] = "hex"
    timestamp_header: HeaderName = Field(
        default="X-Timestamp", description="Header with the time, in seconds since 1970 (UTC)."
    )
    login_header: HeaderName | None = Field(
        default=None,
        description="Header in which the connection's login goes, for the buyer to find the key.",
    )

    def signer(self, credentials: Credentials, post: Post) -> Signer:  # noqa: ARG002
        """Return what signs requests."""
        login = {self.login_header: credentials.login} if self.login_header else {}
        return _HmacSigner(self, credentials.secret(self.from_extra).encode(), login)


class _HmacSigner(Signer):
    def __init__(self, auth: Hmac, key: bytes, login: dict[str, str]) -> None:
        self._auth, self._key, self._login = auth, key, login

    def headers(self, payload: Payload) -> dict[str, str]:
        """Sign `<time>.<body>`; each sending has a time and a signature of its own."""
        now = str(int(time.time()))
        code = hmac.new(self._key, f"{now}.".encode(), getattr(hashlib, self._auth.algorithm))
        for block in payload.blocks():
            code.update(block)
        text = code.hexdigest() if self._auth.encoding == "hex" else base64.b64encode(code.digest()).decode()
        return {
            **self._login,
            self._auth.timestamp_header: now,
            self._auth.header: f"{self._auth.prefix}{text}",
        }


Auth = Annotated[Basic | Bearer | ApiKey | OAuth2 | LoginToken | Hmac, Field(discriminator="type")]

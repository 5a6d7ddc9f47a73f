"""The transforms `mask`, `hash` and `pseudonym`: a value that does not tell whose it is.

A mask shows a part. A hash is the same for everybody who hashes the same value, so that two parties can compare lists.
A pseudonym is the same only within one key, so that a recipient can tell leads apart and count them, and nobody without
the key can find out or try out who they are. Keys are the passwords of Airflow connections; batch files name these.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from leadferry.errors import RenderError
from leadferry.mapping.phone import Phone
from leadferry.mapping.step import Context, Options, Text
from leadferry.secrets import password

if TYPE_CHECKING:
    import polars as pl

_CONNECTION = r"^[A-Za-z0-9_.-]{1,200}$"
_LEAST_KEY = 16
"""Characters of a pseudonym's key; with a shorter one somebody could try out all keys."""


class Mask(Options):
    """Hides characters behind `*`; what would be shown whole is hidden whole."""

    show: str = Field(
        pattern=r"^(?:(?:first|last)[1-9][0-9]?|email|nothing)$",
        description="What stays to be read: last4, first2 (any number), email (j***@example.com), or nothing.",
    )

    def apply(self, values: pl.Series, context: Context) -> pl.Series:  # noqa: ARG002 - the same for all transforms
        """Mask every value; with `email`, what is no address fails."""
        import polars as pl

        value = pl.lit(values)
        if self.show == "email":
            return pl.select(_partial_email(value)).to_series()
        hidden = _starred(value)
        if self.show == "nothing":
            return pl.select(hidden).to_series()
        count = int(self.show.removeprefix("first").removeprefix("last"))
        if self.show.startswith("last"):
            partly = _starred(value.str.head(-count)) + value.str.tail(count)
        else:
            partly = value.str.head(count) + _starred(value.str.tail(-count))
        return pl.select(pl.when(value.str.len_chars() > count).then(partly).otherwise(hidden)).to_series()


def _starred(value: pl.Expr) -> pl.Expr:
    import polars as pl

    return pl.lit("").str.pad_start(value.str.len_chars(), "*")


def _partial_email(value: pl.Expr) -> pl.Expr:
    """Show the first character of the name, if there are more, and the domain; always three stars, whatever the length."""
    import polars as pl

    address = r"^\s*([^\s@])([^@]*)@([^@\s]+)\s*$"
    first = (
        pl.when(value.str.extract(address, 2) != "").then(value.str.extract(address, 1)).otherwise(pl.lit(""))
    )
    return first + "***@" + value.str.extract(address, 3)


class _Identifier(Options):
    """What a hash or pseudonym is made of: the same person must give the same bytes, however the value was typed."""

    of: Literal["text", "email", "phone", "digits"] = Field(
        default="text",
        description="How values are made alike first: trimmed; email also lower case; phone as E.164; digits alone.",
    )
    region: str | None = Field(
        default=None, pattern=r"^[A-Z]{2}$", description="With phone: country of numbers written without one."
    )

    @model_validator(mode="after")
    def _phones_have_a_region(self) -> Self:
        if (self.of == "phone") != (self.region is not None):
            raise ValueError("region goes with of: phone, and of: phone needs it")
        return self

    def _alike(self, values: pl.Series, context: Context) -> pl.Series:
        """Return the values as they are hashed; null where there is no such identifier in it."""
        import polars as pl

        if self.region is not None:
            return Phone(region=self.region).apply(values, context)
        plain = values.str.strip_chars()
        if self.of == "text":
            return plain
        if self.of == "email":
            plain, fits = plain.str.to_lowercase(), r"^[^@\s]+@[^@\s]+$"
        else:
            plain, fits = plain.str.replace_all(r"[^0-9]+", ""), r"[0-9]"
        return pl.select(pl.when(pl.lit(plain).str.contains(fits)).then(pl.lit(plain))).to_series()


class Hash(_Identifier):
    """Writes a value's SHA-256 or MD5 in hexadecimal; with a key, its HMAC."""

    algorithm: Literal["sha256", "md5"] = Field(
        description="sha256, or md5 where the recipient's system knows nothing else."
    )
    key: str | None = Field(
        default=None,
        pattern=_CONNECTION,
        description="Airflow connection whose password is the key of an HMAC; without it anybody can try values out.",
    )

    @cached_property
    def _hashed(self) -> Callable[[str], str]:
        algorithm = self.algorithm
        if self.key is not None:
            keyed = _keyed(_secret(self.key), algorithm)
            return lambda value: keyed(value).hex()
        if algorithm == "md5":
            return lambda value: hashlib.md5(value.encode(), usedforsecurity=False).hexdigest()
        return lambda value: hashlib.sha256(value.encode()).hexdigest()

    def apply(self, values: pl.Series, context: Context) -> pl.Series:
        """Hash every value; what is no such identifier fails.

        Raises:
            RenderError: the key's connection is not there or has no password.
        """
        return _each(self._alike(values, context), self._hashed)


class Pseudonym(_Identifier):
    """Writes a token such as `7F3K-9QXM-2B4D-HJ5T` for a value: always the same within one key."""

    key: str = Field(
        pattern=_CONNECTION,
        description="Airflow connection whose password is the key, 16 characters or more.",
    )
    prefix: Text = Field(default="", max_length=20, description="Stands before every token.")

    @cached_property
    def _token(self) -> Callable[[str], str]:
        keyed, prefix = _keyed(_secret(self.key, least=_LEAST_KEY), "sha256"), self.prefix
        return lambda value: prefix + _readable(keyed(value))

    def apply(self, values: pl.Series, context: Context) -> pl.Series:
        """Replace every value by its token; what is no such identifier fails.

        Raises:
            RenderError: the key's connection is not there, or its password is missing or too short.
        """
        return _each(self._alike(values, context), self._token)


_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Digits and letters without I, L, O and U, which are taken for others: https://www.crockford.com/base32.html."""

_PAIRS = [one + other for one in _CROCKFORD for other in _CROCKFORD]
"""Two signs for every ten bits; several times faster than `base64` on such short texts."""


def _readable(digest: bytes) -> str:
    """Return the first 80 bits as four groups of four; two of a billion leads share them with odds of 1 to 2.4 million."""
    bits, pairs = int.from_bytes(digest[:10]), _PAIRS
    return (
        f"{pairs[bits >> 70]}{pairs[bits >> 60 & 1023]}-{pairs[bits >> 50 & 1023]}{pairs[bits >> 40 & 1023]}-"
        f"{pairs[bits >> 30 & 1023]}{pairs[bits >> 20 & 1023]}-{pairs[bits >> 10 & 1023]}{pairs[bits & 1023]}"
    )


def _keyed(secret: bytes, algorithm: str) -> Callable[[str], bytes]:
    """Return the HMAC under one key; the key is worked in once, which is half of what a short value costs."""
    fresh = hmac.new(secret, digestmod=algorithm)

    def digest(value: str) -> bytes:
        one = fresh.copy()
        one.update(value.encode())
        return one.digest()

    return digest


def _each(values: pl.Series, one: Callable[[str], str]) -> pl.Series:
    """Call `one` for every value: polars has no such hashes, and finding distinct values costs more than a hash."""
    import polars as pl

    return pl.Series([None if value is None else one(value) for value in values.to_list()], dtype=pl.String)


def _secret(connection_id: str, *, least: int = 1) -> bytes:
    """Return the password of an Airflow connection, which is the key.

    It is read once for every time that a batch's mapping is loaded, so one file is never made with two keys.
    """
    key = password(connection_id)
    if len(key) < least:
        raise RenderError(
            f"connection '{connection_id}': its password is the key, and must have at least {least} characters",
            hint="Set it to a long random text, and keep it: another key makes other values of the same leads",
        )
    return key.encode()

from __future__ import annotations

import pytest

from leadferry import secrets
from leadferry.errors import RenderError


def test_password_and_extra_of_a_connection_are_read(connection):
    connection("zip_secret", password="pass-word", extra={"public_key": "text", "bits": 5})

    found = secrets.read("zip_secret")

    assert (found.password, found.extra) == ("pass-word", {"public_key": "text", "bits": "5"})


def test_what_a_connection_holds_is_never_shown(connection):
    connection("zip_secret", password="pass-word", extra={"private_key": "hidden"})

    shown = repr(secrets.read("zip_secret"))

    assert "pass-word" not in shown
    assert "hidden" not in shown


def test_an_unknown_connection_is_named():
    with pytest.raises(RenderError, match="connection 'nowhere': Airflow does not know this connection"):
        secrets.password("nowhere")


def test_a_connection_without_a_password_is_named(connection):
    connection("zip_secret")

    with pytest.raises(RenderError, match="connection 'zip_secret': it has no password"):
        secrets.password("zip_secret")


def test_a_secrets_backend_that_fails_tells_nothing_of_the_secret(monkeypatch):
    from airflow.sdk import Connection

    def refuse(_: str) -> None:
        raise PermissionError("vault token pass-word was refused")

    monkeypatch.setattr(Connection, "get", refuse)

    with pytest.raises(
        RenderError, match=r"connection 'broken': it cannot be read \(PermissionError\)"
    ) as told:
        secrets.password("broken")

    assert "pass-word" not in str(told.value)
    assert told.value.__context__ is None

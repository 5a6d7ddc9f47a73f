"""The keys of an HTTP destination: what they freeze to, what is refused. How it sends: the folder `http`."""

import json

import pytest

from leadferry.batch.check import check
from leadferry.destinations.http import Http

YES = [{"when": {"status": ["2xx"], "json": "$.result", "equals": "accepted"}, "then": "accepted"}]


def api(**keys):
    return Http.model_validate({"id": "api", "connection": "buyer_api", "answers": YES, **keys})


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"send": "chunk", "items": {"at": "$.r", "lead": "$.id"}, "body": {"type": "xml", "root": "all"}},
        {"send": "file", "upload": {"type": "multipart", "values": {"a": "b"}}},
        {"auth": {"type": "hmac", "encoding": "base64"}},
        {"auth": {"type": "login", "path": "/in", "valid_for": "90s"}},
        {"auth": {"type": "oauth2", "token_url": "/token", "scope": "leads"}},
        {"answers": [{"when": {"xpath": "//ok", "equals": True}, "then": "accepted"}]},
        {
            "capture": {
                "price": {"matches": "price=(\\d+)"},
                "buyer_id": {"json": "$.id"},
                "message": {"xpath": "//m"},
            }
        },
        {"allow_plaintext": True, "plaintext_reason": "in our own network", "wait_at_most": "10s"},
    ],
)
def test_a_destination_survives_being_frozen(keys):
    made = api(**keys)
    assert Http.model_validate(json.loads(json.dumps(made.model_dump(mode="json")))) == made


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"answers": []}, "at least 1"),
        ({"answers": [{"when": {"status": [200]}, "then": "rejected"}]}, "no rule with `then: accepted`"),
        ({"answers": [{"when": {}, "then": "accepted"}]}, "would fit every answer"),
        (
            {"answers": [{"when": {"json": "$.a", "xpath": "//a", "exists": True}, "then": "accepted"}]},
            "two rules",
        ),
        ({"answers": [{"when": {"json": "$.a"}, "then": "accepted"}]}, "not for what"),
        ({"answers": [{"when": {"json": "a.b", "exists": True}, "then": "accepted"}]}, "begins with"),
        ({"answers": [{"when": {"json": "$.*", "exists": True}, "then": "accepted"}]}, "cannot be read"),
        ({"answers": [{"when": {"xpath": "//[", "exists": True}, "then": "accepted"}]}, "no XPath"),
        ({"answers": [{"when": {"matches": "("}, "then": "accepted"}]}, "no regular expression"),
        ({"capture": {"price": {"json": "$.a", "matches": "b"}}}, "exactly one"),
        ({"path": "/{{ fields.a }}", "send": "chunk"}, "unknown variable 'fields'"),
        ({"path": "https://elsewhere.example/"}, "only the path"),
        ({"headers": {"Authorization": "Bearer x"}}, "set from the connection"),
        ({"headers": {"X-A": "{{ nonsense }}"}}, "headers.X-A"),
        ({"body": {"type": "form"}, "send": "chunk"}, "a form holds one lead"),
        ({"body": {"type": "json"}, "send": "file"}, "under upload"),
        ({"upload": {"type": "raw"}}, "under body"),
        ({"items": {"at": "$.a"}}, "send: chunk"),
        ({"method": "GET"}, "POST"),
    ],
)
def test_what_cannot_be_meant_is_refused(keys, told):
    with pytest.raises(ValueError, match="(?s)" + told.replace("(", r"\(").replace("$", r"\$")):
        api(**keys)


@pytest.mark.parametrize(
    "auth",
    [
        {"type": "bearer", "from_extra": "crm"},
        {"type": "api_key", "header": "X-Api-Key"},
        {"type": "oauth2", "token_url": "/token", "client_in": "body", "audience": "a"},
        {
            "type": "login",
            "path": "/in",
            "login_key": "u",
            "password_key": "p",
            "token_at": "$.t",
            "prefix": "",
        },
        {"type": "hmac", "timestamp_header": "X-At", "login_header": "X-Key"},
    ],
)
def test_no_key_of_a_batch_file_is_taken_for_a_secret(auth, tmp_path):
    config = tmp_path / "config"
    (config / "batches").mkdir(parents=True)
    (config / "recipients").mkdir()
    (config / "recipients/buyer.yaml").write_text("name: Buyer\n")
    destination = json.dumps({"id": "api", "type": "http", "connection": "c", "auth": auth, "answers": YES})
    (config / "batches/acme.yaml").write_text(
        "name: Acme\nrecipient: buyer\nflows: [auto]\nschedule: manual\n"
        f"fields: [{{to: Email, from: email}}]\ndestinations: [{destination}]\n"
    )
    assert check(config).problems == []

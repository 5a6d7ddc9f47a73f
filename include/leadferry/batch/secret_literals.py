"""Secrets have no place in a file that is reviewed, copied and kept in Git for ever.

Refused are keys that announce a secret, and values that can be nothing else: private keys, tokens with the
prefixes that their makers gave them for this purpose, passwords in URLs. A long random word alone is not refused:
it may be an id, and a check that cries wolf gets switched off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

INSTEAD = "keep it in an Airflow connection or a secrets backend, and name the connection here"

_KEY = re.compile(
    r"""(?:.*_)?(?: password | passwd | passphrase | secret | token | private_key | api_?key | access_key
        | secret_key ) | pwd | (?:proxy_)?authorization | (?:aws_)?access_key_id | credentials | secrets | tokens | passwords""",
    re.VERBOSE,
)


@dataclass(frozen=True)
class _Shape:
    """What some kind of secret looks like."""

    kind: str
    markers: tuple[str, ...]
    """One of these stands in every match; looking for them first makes ordinary files cost next to nothing."""
    pattern: re.Pattern[str]


_SHAPES = tuple(
    _Shape(kind, markers, re.compile(pattern))
    for kind, markers, pattern in (
        ("a private key", ("PRIVATE KEY",), r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"),
        ("an AWS access key id", ("AKIA", "ASIA", "AROA"), r"\b(?:AKIA|ASIA|AROA)[A-Z0-9]{16}\b"),
        (
            "a GitHub token",
            ("gh", "github_pat_"),
            r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}",
        ),
        ("a GitLab token", ("glpat-",), r"\bglpat-[A-Za-z0-9_-]{20,}"),
        ("a Slack token", ("xox",), r"\bxox[a-z]-[A-Za-z0-9-]{10,}"),
        ("a Slack webhook", ("hooks.slack",), r"hooks\.slack\.com/services/T\w+/B\w+/\w+"),
        ("a Stripe key", ("k_live_",), r"\b[rs]k_live_[A-Za-z0-9]{16,}"),
        ("a Google API key", ("AIza",), r"\bAIza[A-Za-z0-9_-]{35}\b"),
        ("a SendGrid key", ("SG.",), r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
        (
            "a signed token (JWT)",
            ("eyJ",),
            r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}",
        ),
        (
            "an Authorization header",
            ("Bearer ", "Basic "),
            r"\b(?:Bearer|Basic) (?=\S*[0-9])[A-Za-z0-9+/._~-]{20,}=*",
        ),
        ("an Azure key", ("AccountKey=",), r"\bAccountKey=[A-Za-z0-9+/]{20,}=*"),
        ("a signed address", ("sig=",), r"[?&]sig=[A-Za-z0-9%+/]{20,}=*"),
        (
            "an address with a password in it",
            ("://",),
            r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@\"'{}]*:[^\s/@\"']+@",
        ),
        (
            "a password or token inside a text",
            ("=",),
            r"(?i:\b(?:password|passwd|pwd|secret|api_?key|access_token|token)=)[^\s&;,{}\"'<>]{6,}",
        ),
    )
)


def is_secret_key(key: str) -> bool:
    """Say whether a YAML key announces that its value is a secret."""
    return _KEY.fullmatch(key.strip().lower().replace("-", "_").replace(" ", "_")) is not None


def secrets_in(text: str) -> list[tuple[int, str]]:
    """Return where in a text something stands that can only be a secret, and what kind; never the thing itself."""
    return [
        (found.start(), shape.kind) for shape in _possible(text) for found in shape.pattern.finditer(text)
    ]


def redact(text: str) -> str:
    """Return the text with everything that looks like a secret replaced."""
    for shape in _possible(text):
        text = shape.pattern.sub("(a secret)", text)
    return text


def _possible(text: str) -> list[_Shape]:
    return [shape for shape in _SHAPES if any(marker in text for marker in shape.markers)]

"""Secrets have no place in a file that is reviewed, copied and kept in Git for ever.

Refused are keys that announce a secret, and values that can be nothing else: private keys, tokens with the
prefixes that their makers gave them for this purpose, passwords in URLs. A long random word alone is not refused:
it may be an id, and a check that cries wolf gets switched off.
"""

from __future__ import annotations

import re

INSTEAD = "keep it in an Airflow connection or a secrets backend, and name the connection here"

_KEY = re.compile(
    r"""(?:.*_)?(?: password | passwd | passphrase | secret | token | private_key | api_?key | access_key
        | secret_key ) | pwd | (?:proxy_)?authorization | (?:aws_)?access_key_id | credentials | secrets | tokens | passwords""",
    re.VERBOSE,
)

_SHAPES = {
    "private_key": ("a private key", r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"),
    "aws": ("an AWS access key id", r"\b(?:AKIA|ASIA|AROA)[A-Z0-9]{16}\b"),
    "github": ("a GitHub token", r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}"),
    "gitlab": ("a GitLab token", r"\bglpat-[A-Za-z0-9_-]{20,}"),
    "slack": ("a Slack token", r"\bxox[a-z]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/T\w+/B\w+/\w+"),
    "stripe": ("a Stripe key", r"\b[rs]k_live_[A-Za-z0-9]{16,}"),
    "google": ("a Google API key", r"\bAIza[A-Za-z0-9_-]{35}\b"),
    "sendgrid": ("a SendGrid key", r"\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    "jwt": ("a signed token (JWT)", r"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    "header": ("an Authorization header", r"\b(?:Bearer|Basic) (?=\S*[0-9])[A-Za-z0-9+/._~-]{20,}=*"),
    "azure": ("an Azure key or signature", r"\bAccountKey=[A-Za-z0-9+/]{20,}|[?&]sig=[A-Za-z0-9%+/]{20,}"),
    "url": ("an address with a password in it", r"\b[A-Za-z][A-Za-z0-9+.-]*://[^\s/:@\"'{}]*:[^\s/@\"']+@"),
    "pair": (
        "a password or token inside a text",
        r"(?i:\b(?:password|passwd|pwd|secret|api_?key|access_token|token)=)[^\s&;,{}\"'<>]{6,}",
    ),
}
_VALUE = re.compile("|".join(f"(?P<{name}>{pattern})" for name, (_, pattern) in _SHAPES.items()))


def is_secret_key(key: str) -> bool:
    """Say whether a YAML key announces that its value is a secret."""
    return _KEY.fullmatch(key.strip().lower().replace("-", "_").replace(" ", "_")) is not None


def secrets_in(text: str) -> list[tuple[int, str]]:
    """Return where in a text something stands that can only be a secret, and what kind; never the thing itself."""
    return [(found.start(), _SHAPES[found.lastgroup or ""][0]) for found in _VALUE.finditer(text)]


def redact(text: str) -> str:
    """Return the text with everything that looks like a secret replaced."""
    return _VALUE.sub("(a secret)", text)

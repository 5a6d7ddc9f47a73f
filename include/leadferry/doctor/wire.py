"""Names, ports and certificates: what can be said about a host before anybody logs in."""

from __future__ import annotations

import ftplib
import smtplib
import socket
import ssl
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timedelta
from enum import Enum, auto
from typing import TYPE_CHECKING, cast
from urllib.request import getproxies, proxy_bypass

from leadferry.destinations.faults.ftp import ftp_faults
from leadferry.destinations.faults.smtp import smtp_faults
from leadferry.destinations.faults.system import file_faults
from leadferry.doctor.finding import Finding, Stage, Verdict
from leadferry.errors import ConnectionRefusedByHostError, ConnectTimeoutError, DeliveryError, DnsError

if TYPE_CHECKING:
    from dns.resolver import Resolver

AHEAD = timedelta(days=30)
"""How long before a certificate ends it is told."""

_MX_SECONDS = 5
"""How long the name servers may take for the mail servers of one domain."""


class Opening(Enum):
    """How TLS begins on a connection."""

    AT_ONCE = auto()
    FTP = auto()
    """By `AUTH TLS`."""
    SMTP = auto()
    """By `STARTTLS`."""


def goes_through_proxy(host: str) -> bool:
    """Tell whether this machine's settings send HTTP to a host through a proxy, which then looks up the name."""
    return bool(getproxies().get("https")) and not proxy_bypass(host)


def resolve(host: str, port: int) -> Finding:
    """Look up a host name."""
    try:
        with file_faults(f"host {host}"):
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        return _failed(Stage.DNS, f"{host!r} is no host name", DnsError.hint)
    except DeliveryError as error:
        return _failed(Stage.DNS, error.what, error.next_step)
    addresses = sorted({str(address[0]) for *_, address in found})
    return Finding(stage=Stage.DNS, verdict=Verdict.OK, what=f"{host} is {', '.join(addresses[:4])}")


def reach(host: str, port: int, *, timeout: float) -> Finding:
    """Connect to a port and hang up."""
    try:
        with file_faults(f"{host}:{port}"), socket.create_connection((host, port), timeout=timeout):
            return Finding(stage=Stage.TCP, verdict=Verdict.OK, what=f"{host}:{port} is open")
    except DeliveryError as error:
        known = isinstance(error, ConnectionRefusedByHostError | ConnectTimeoutError)
        hint = error.next_step if known else ConnectTimeoutError.hint
        return _failed(Stage.TCP, error.what, hint)


def certificate(
    host: str, port: int, *, opening: Opening, timeout: float, now: datetime
) -> Finding | DeliveryError:
    """Look how long a server's certificate holds; whether it is the right one is checked when logging in.

    Returns what failed instead, when no TLS connection came to pass.

    Args:
        host: as in the Airflow connection.
        port: the same.
        opening: how TLS begins there.
        timeout: seconds of silence.
        now: by which certificates end, aware.
    """
    try:
        with ftp_faults(f"{host}:{port}"), smtp_faults(f"{host}:{port}"):
            ends = _end_of_certificate(host, port, opening=opening, timeout=timeout)
    except DeliveryError as error:
        return error
    on = f"{ends:%Y-%m-%d}"
    if ends <= now:
        hint = "Ask whoever runs the server to renew its certificate; never switch the check off"
        return _failed(Stage.TLS, f"the server's certificate ended on {on}", hint)
    if ends - now < AHEAD:
        return Finding(
            stage=Stage.TLS,
            verdict=Verdict.WARNING,
            what=f"the server's certificate ends on {on}, in {(ends - now).days} days",
            remedy="Ask whoever runs the server whether it will be renewed in time",
        )
    return Finding(stage=Stage.TLS, verdict=Verdict.OK, what=f"the server's certificate holds until {on}")


def _end_of_certificate(host: str, port: int, *, opening: Opening, timeout: float) -> datetime:
    from cryptography import x509

    context = ssl.create_default_context()
    # Only to read the date, of a wrong certificate too: nothing is said on this connection.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        closing(_before_tls(host, port, opening=opening, timeout=timeout)) as plain,
        context.wrap_socket(plain, server_hostname=host) as wrapped,
    ):
        der = wrapped.getpeercert(binary_form=True)
    if not der:
        raise ssl.SSLError(ssl.SSL_ERROR_SSL, "no certificate")
    return x509.load_der_x509_certificate(der).not_valid_after_utc


def _before_tls(host: str, port: int, *, opening: Opening, timeout: float) -> socket.socket:
    """Connect, and say what has to be said before TLS begins."""
    if opening is Opening.AT_ONCE:
        return socket.create_connection((host, port), timeout=timeout)
    client = ftplib.FTP() if opening is Opening.FTP else smtplib.SMTP(timeout=timeout)  # noqa: S321  (TLS begins here)
    try:
        if isinstance(client, ftplib.FTP):
            client.connect(host, port, timeout=timeout)
            client.sendcmd("AUTH TLS")
        else:
            client.connect(host, port)
            client.ehlo()
            _require_ready(*client.docmd("STARTTLS"))
    except BaseException:
        client.close()
        raise
    return cast("socket.socket", client.sock)


def _require_ready(code: int, text: bytes) -> None:
    if code != 220:  # noqa: PLR2004  ("ready to start TLS")
        raise smtplib.SMTPResponseException(code, text)


def mail_servers(domains: Iterable[str], *, resolver: Resolver | None = None) -> list[Finding]:
    """Look whether domains take mail: they have an MX record, or at least an address.

    A domain without either is a warning and no failure, because our own mail server may know better.
    """
    return [_mail_server(domain, resolver=resolver) for domain in sorted(set(domains))]


def _mail_server(domain: str, *, resolver: Resolver | None) -> Finding:
    from dns import exception
    from dns import resolver as dns_resolver

    asked = resolver or dns_resolver.get_default_resolver()
    try:
        found = asked.resolve(domain, "MX", lifetime=_MX_SECONDS)
    except dns_resolver.NXDOMAIN:
        return _doubtful(domain, "there is no such domain")
    except dns_resolver.NoAnswer:
        return _without_mx(domain, asked)
    except (exception.DNSException, OSError, UnicodeError) as error:
        return _doubtful(domain, f"the name servers did not say ({type(error).__name__})")
    hosts = [str(one.exchange).rstrip(".") for one in sorted(found, key=lambda one: one.preference)]
    if hosts == [""]:
        return _doubtful(domain, "the domain says that it takes no mail (null MX)")
    return Finding(stage=Stage.MX, verdict=Verdict.OK, what=f"{domain}: mail goes to {hosts[0]}")


def _without_mx(domain: str, resolver: Resolver) -> Finding:
    """Without MX the domain's own address takes mail (RFC 5321, 5.1)."""
    from dns import exception

    for kind in ("A", "AAAA"):
        try:
            resolver.resolve(domain, kind, lifetime=_MX_SECONDS)
        except (exception.DNSException, OSError):
            continue
        return Finding(stage=Stage.MX, verdict=Verdict.OK, what=f"{domain}: no MX, mail goes to its address")
    return _doubtful(domain, "the domain has neither an MX record nor an address")


def _doubtful(domain: str, what: str) -> Finding:
    hint = (
        "Check the spelling of the address; if it is right, ask the recipient. Mail may come back hours later"
    )
    return Finding(stage=Stage.MX, verdict=Verdict.WARNING, what=f"{domain}: {what}", remedy=hint)


def _failed(stage: Stage, what: str, remedy: str) -> Finding:
    return Finding(stage=stage, verdict=Verdict.FAILED, what=what, remedy=remedy)

"""An FTP connection as today's servers want it: Python's `ftplib` with its gaps closed.

* Every wait ends: connecting, the greeting, each answer, each piece of data.
* The data connections resume the TLS session of the control connection, which proves to the server that both belong
  to the same client; vsftpd, ProFTPD and FileZilla Server refuse transfers without that.
* TLS may begin with the connection (implicit) or with `AUTH TLS` (explicit), never below version 1.2.
* When a transfer breaks, the server's answer is read: it says why, where the broken pipe does not.
"""

from __future__ import annotations

import ftplib
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

Security = Literal["explicit_tls", "implicit_tls", "none"]

_PIECE = 1 << 16
"""Bytes handed to the system at a time: the timeout counts anew for each."""

_PATIENCE = 5
"""Most seconds to wait for what is only courtesy: the end of TLS on a data connection, the answer to QUIT."""

_UNKNOWN_COMMAND = ("500", "501", "502", "504")
"""How servers begin their answer to a command that they do not have."""

_NO_LIST = (*_UNKNOWN_COMMAND, "450", "550")
"""How they begin their answer to a wish for a list that is empty or forbidden."""


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return TLS 1.2 or newer that checks certificate and host name, by the system's authorities or those of a file."""
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Client(ftplib.FTP_TLS):
    """One FTP connection: `reach`, `enter`, use it, `leave`.

    Args:
        security: whether and when TLS begins; the data connections are protected whenever the control connection is.
        context: checks the server's certificate.
        timeout: seconds that the server may stay silent.
        encoding: of names in commands and answers.
        passive: whether this side opens the data connections.
    """

    def __init__(
        self, *, security: Security, context: ssl.SSLContext, timeout: float, encoding: str, passive: bool
    ) -> None:
        super().__init__(context=context, timeout=timeout, encoding=encoding)
        self._security = security
        self._silence = timeout
        self._courtesy = min(timeout, _PATIENCE)
        self._features: dict[str, str] = {}
        self.set_pasv(passive)

    def reach(self, host: str, port: int) -> None:
        """Connect and begin TLS; nothing secret has been said yet."""
        self.host, self.port = host, port
        sock = socket.create_connection((host, port), timeout=self.timeout)
        # Firewalls forget connections that are silent, as this one is during a long transfer.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.af = sock.family
        self._speak_through(self._secured(sock) if self._security == "implicit_tls" else sock)
        self.welcome = self.getresp()
        if self._security == "explicit_tls":
            self._ask_for_tls()
            # With a new reader: what came in plain text before TLS began is thrown away with the old one.
            self._speak_through(self._secured(sock))

    def _ask_for_tls(self) -> None:
        try:
            self.voidcmd("AUTH TLS")
        except ftplib.error_perm:
            # Servers without TLS have many words for it; this is the number that RFC 4217 has.
            raise ftplib.error_perm("534 no TLS") from None  # noqa: S321  (an exception, no transfer)

    def _secured(self, sock: socket.socket, *, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        return self.context.wrap_socket(sock, server_hostname=self.host, session=session)

    def _speak_through(self, sock: socket.socket) -> None:
        # Servers greet in the language and encoding of their country; only the numbers are of interest.
        self.sock = sock
        self.file = sock.makefile("r", encoding=self.encoding, errors="surrogateescape")

    def enter(self, user: str, password: str) -> None:
        """Log in, protect the data connections, and settle what every transfer needs."""
        self.login(user, password, secure=False)
        if self._security != "none":
            self.prot_p()
        self._features = self._ask_features()
        if "UTF8" in self._features and self.encoding.lower().replace("-", "") == "utf8":
            with suppress(ftplib.error_perm):
                self.voidcmd("OPTS UTF8 ON")
        # Sizes and bytes; in text mode servers change line ends and refuse SIZE.
        self.voidcmd("TYPE I")

    def _ask_features(self) -> dict[str, str]:
        """Return what the server says it can do beyond RFC 959, by command."""
        try:
            lines = self.sendcmd("FEAT").splitlines()[1:-1]
        except ftplib.error_perm:
            return {}
        words = [line.strip().partition(" ") for line in lines]
        return {command.upper(): arguments for command, _, arguments in words}

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        """Open a data connection for a command; protected by the TLS session of the control connection."""
        # Not FTP_TLS's own, which begins a new TLS session for each data connection.
        conn, size = ftplib.FTP.ntransfercmd(self, cmd, rest)  # noqa: S321  (plain only where the batch allows it)
        control = self.sock
        try:
            if control is None or conn.getpeername()[0] != control.getpeername()[0]:
                raise ConnectionAbortedError  # somebody else was faster at the port that we opened
            if isinstance(control, ssl.SSLSocket):
                conn = self._secured(conn, session=control.session)
        except OSError as error:
            conn.close()
            self._settle(error)
            raise
        return conn, size

    def upload(self, name: str, blocks: Iterable[bytes]) -> None:
        """Store blocks under a name and wait until the server says that it has them all."""
        conn = self.transfercmd(f"STOR {name}")
        try:
            with conn:
                for piece in _pieces(blocks):
                    conn.sendall(piece)
                self._end(conn)
        except Exception as error:
            self._settle(error)
            raise
        self.voidresp()

    def download(self, command: str, use: Callable[[bytes], object]) -> None:
        """Hand over what a command sends, piece by piece, and wait until the server says that this was all."""
        conn = self.transfercmd(command)
        try:
            with conn:
                while piece := conn.recv(_PIECE):
                    use(piece)
                self._end(conn)
        except Exception as error:
            self._settle(error)
            raise
        self.voidresp()

    def _end(self, conn: socket.socket) -> None:
        """Say in TLS that this was all; many servers just hang up, and what arrived is verified anyway."""
        if isinstance(conn, ssl.SSLSocket):
            conn.settimeout(self._courtesy)
            with suppress(OSError):
                conn.unwrap()

    def _settle(self, error: Exception) -> None:
        """Read the answer that is still due to a broken transfer, so that the connection can be used further.

        Raises:
            ftplib.Error: what the server says about it, when the transfer broke on the network.
        """
        if self.sock is None:
            return
        try:
            self.sock.settimeout(self._courtesy)
            self.getresp()
        except ftplib.Error:
            if isinstance(error, OSError):
                raise
        except (OSError, EOFError):
            pass  # the server is gone as well
        finally:
            self.sock.settimeout(self._silence)

    def size_of(self, name: str) -> int | None:
        """Return the bytes of a file, None if there is nothing; -1 stands for something that is no file."""
        if "MLST" in self._features:
            return self._size_by_facts(name)
        try:
            found = self.size(name)
        except ftplib.error_perm as refused:
            if str(refused).startswith(_UNKNOWN_COMMAND):
                return self._size_by_reading(name)
            # Refused: nothing there, or nothing that has a size, such as a directory.
            return -1 if name in self.names() else None
        return self._size_by_reading(name) if found is None else found

    def _size_by_facts(self, name: str) -> int | None:
        try:
            answer = self.sendcmd(f"MLST {name}")
        except ftplib.error_perm as refused:
            if str(refused).startswith("550"):
                return None
            raise
        facts = dict(
            fact.lower().split("=", 1)
            for line in answer.splitlines()[1:-1]
            for fact in line.strip().split(";")
            if "=" in fact.partition(" ")[0]
        )
        return int(facts.get("size", -1)) if facts.get("type", "file") == "file" else -1

    def _size_by_reading(self, name: str) -> int | None:
        if name not in self.names():
            return None
        size = 0

        def count(piece: bytes) -> None:
            nonlocal size
            size += len(piece)

        self.download(f"RETR {name}", count)
        return size

    def names(self) -> list[str]:
        """Return the names in the current directory, hidden ones too where the server shows them.

        Some recipients let us write but not list; then there are none.
        """
        if "MLST" in self._features:
            return [line.partition(" ")[2] for line in self._lines("MLSD")]
        # Some servers hide names with a dot in front unless asked, others take "-a" for a name.
        found = self._lines("NLST -a") or self._lines("NLST")
        return [line.rpartition("/")[2] for line in found]

    def _lines(self, command: str) -> list[str]:
        pieces: list[bytes] = []
        try:
            self.download(command, pieces.append)
        except (ftplib.error_perm, ftplib.error_temp) as refused:
            if not str(refused).startswith(_NO_LIST):
                raise
            return []
        return b"".join(pieces).decode(self.encoding, "surrogateescape").splitlines()

    def sha256_of(self, name: str) -> str | None:
        """Return the SHA-256 that the server computes of a file, in hex; None where it cannot."""
        if "SHA-256" in self._features.get("HASH", "").upper():
            questions = ["OPTS HASH SHA-256", f"HASH {name}"]
        elif "XSHA256" in self._features:
            questions = [f"XSHA256 {name}"]
        else:
            return None
        try:
            answer = [self.sendcmd(question) for question in questions][-1]
        except (ftplib.error_perm, ftplib.error_temp):
            return None
        words = answer.lower().replace('"', " ").split()
        return next((word for word in words if _is_sha256(word)), None)

    def leave(self) -> None:
        """Say goodbye, briefly; what was sent is settled by now, so nothing that goes wrong here matters."""
        if self.sock is None:
            return
        with suppress(Exception):
            self.sock.settimeout(self._courtesy)
            self.quit()
        with suppress(Exception):
            self.close()


def _is_sha256(word: str) -> bool:
    return len(word) == 64 and all(digit in "0123456789abcdef" for digit in word)  # noqa: PLR2004


def _pieces(blocks: Iterable[bytes]) -> Iterator[bytes]:
    for block in blocks:
        for start in range(0, len(block), _PIECE):
            yield block[start : start + _PIECE]

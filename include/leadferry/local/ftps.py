"""A buyer's FTPS server for the try-out and the tests: `python -m leadferry.local.ftps --root DIR --state DIR`.

It wants TLS for commands and data, begun by `AUTH TLS`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import TLS_FTPHandler
from pyftpdlib.ioloop import IOLoop
from pyftpdlib.servers import FTPServer

from leadferry.local.background import Receiver, private_folder, serve_logins
from leadferry.local.certificates import HOST, certificates

_LOOK_UP_SECONDS = 0.05
"""How often the server's loop looks whether it shall end."""


class FtpsReceiver(Receiver):
    """An FTP server with TLS on 127.0.0.1, with a certificate of an authority of its own.

    Args:
        root: the folder that every login sees as `/`.
        state: where the authority's certificate and the server's key stay.
        passwords: password by user name.
        port: 0 takes a free one.
        passive_ports: those of data connections; any when left out.
        addresses: IP addresses for which the certificate is good.
        handler: the protocol; tests hand in servers that misbehave.
    """

    def __init__(  # noqa: PLR0913  (all by keyword, most with a default)
        self,
        *,
        root: Path,
        state: Path,
        passwords: Mapping[str, str],
        port: int = 0,
        passive_ports: Sequence[int] | None = None,
        addresses: Sequence[str] = (HOST,),
        handler: type[TLS_FTPHandler] = TLS_FTPHandler,
    ) -> None:
        self.root = root
        self.passwords = dict(passwords)
        self.port = port
        self.ca_file = certificates(private_folder(state), name="ftps", addresses=addresses)
        settings = {
            "certfile": str(state / "ftps.pem"),
            "keyfile": str(state / "ftps.key"),
            "ssl_context": None,
            "tls_control_required": handler.tls_control_required or handler is TLS_FTPHandler,
            "tls_data_required": handler.tls_data_required or handler is TLS_FTPHandler,
            "passive_ports": passive_ports,
            "banner": "ready",
        }
        self._handler: Any = type("HandlerHere", (handler,), settings)
        self._ending = threading.Event()

    def __enter__(self) -> Self:
        """Listen, and serve on a thread."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._handler.authorizer = DummyAuthorizer()
        for user, password in self.passwords.items():
            self._handler.authorizer.add_user(user, password, str(self.root.resolve()), perm="elradfmwMT")
        self._server = FTPServer((HOST, self.port), self._handler, ioloop=IOLoop())
        self.port = self._server.address[1]
        self._thread = threading.Thread(target=self._serve, name=type(self).__name__, daemon=True)
        self._thread.start()
        return self

    def _serve(self) -> None:
        while not self._ending.is_set():
            self._server.ioloop.loop(timeout=_LOOK_UP_SECONDS, blocking=False)
        self._server.close_all()

    def __exit__(self, *_: object) -> None:
        """Stop listening and hang up."""
        self._ending.set()
        self._thread.join(timeout=30)

    def announcement(self) -> dict[str, Any]:
        """Say the port, the authority's certificate, and the Airflow connection of the first user."""
        user, password = next(iter(self.passwords.items()), (None, None))
        connection = {
            "conn_type": "ftp",
            "host": HOST,
            "port": self.port,
            "login": user,
            "password": password,
            "extra": {"ca_file": str(self.ca_file)},
        }
        return {"port": self.port, "ca_file": str(self.ca_file), "connection": connection}


if __name__ == "__main__":
    serve_logins(FtpsReceiver, description=__doc__)

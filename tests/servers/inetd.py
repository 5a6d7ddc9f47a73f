"""Starts one process per connection, as inetd does, so that no port must be guessed."""

import socketserver
import subprocess
import threading


class Inetd:
    """A server whose program speaks on its standard input and output; a subclass says which."""

    port: int

    def command(self):
        raise NotImplementedError

    def __enter__(self):
        command = self.command()

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                subprocess.run(
                    command, stdin=self.request, stdout=self.request, stderr=subprocess.DEVNULL, check=False
                )

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join(timeout=30)
        self._server.server_close()

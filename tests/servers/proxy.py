"""A wire between client and server that the test can cut."""

import contextlib
import socket
import threading


class Wire:
    """Forwards connections to `target`, a port or the path of a Unix socket; cuts after `cut_after` bytes from the client, or never."""

    def __init__(self, target, *, listener=None):
        self.target = target
        self.cut_after = None
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = set()
        self._threads = []

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(timeout=30)

    def cut(self):
        """Cut everything that is open now."""
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def cutting(self, after):
        """Cut each connection after so many bytes from the client."""
        self.cut_after = after
        try:
            yield
        finally:
            self.cut_after = None

    def _start(self, work, *args, **options):
        thread = threading.Thread(target=work, args=args, kwargs=options, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _reach(self):
        if isinstance(self.target, int):
            return socket.create_connection(("127.0.0.1", self.target))
        far = socket.socket(socket.AF_UNIX)
        far.connect(self.target)
        return far

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = self._reach()
                except OSError:
                    near.close()
                    continue
                for end in (near, far):
                    if end.family == socket.AF_INET:
                        # Small answers must not wait for more to send along, which costs 40 ms each.
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {near, far}
                self._start(self._forward, near, far, from_client=True)
                self._start(self._forward, far, near, from_client=False)

    def _forward(self, source, sink, *, from_client):
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                passed += len(data)
                if from_client and self.cut_after is not None and passed > self.cut_after:
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()
        self._open.discard(source)

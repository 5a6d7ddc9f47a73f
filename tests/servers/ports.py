"""Ports that stay free until they are used: one that is looked up and let go may be anybody's a moment later."""

import contextlib
import socket


@contextlib.contextmanager
def kept_free(host="127.0.0.1"):
    """A port that refuses connections and that the system gives to nobody else.

    A server may be told to listen there meanwhile if it reuses addresses, as Airflow's and Postfix do.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind((host, 0))
        yield keeper.getsockname()[1]

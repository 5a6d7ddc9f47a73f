"""Run by `pgp.py` as a program of its own: keys from one pipe, leads from standard input, the message to standard output.

The OpenPGP library works on whole files and keeps Python from doing anything else meanwhile, so that in one process
nobody could hand it the next bytes. Nothing is printed: a foreign error's text may hold anything.
"""

import json
import os
import sys
from base64 import b64decode


def main(keys: int) -> None:
    """Encrypt standard input.

    Args:
        keys: file descriptor that gives JSON with `recipients`, `signer`, `passphrase`, `armor`; then it ends.
    """
    from pysequoia import Cert, Tsk, encrypt_file

    with os.fdopen(keys, "rb") as given:
        order = json.load(given)
    signer = None
    if order["signer"]:
        signer = Tsk.from_bytes(b64decode(order["signer"])).signer(order["passphrase"])
    recipients = [Cert.from_bytes(b64decode(one)) for one in order["recipients"]]
    encrypt_file("/dev/stdin", "/dev/stdout", recipients=recipients, signer=signer, armor=order["armor"])


if __name__ == "__main__":
    main(int(sys.argv[1]))

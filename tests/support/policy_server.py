"""A policy server in openpi's protocol, as a process: ``python policy_server.py KIND`` prints its port.

KIND: good, short, metres, text, bare, garbage, slow, or what may be said of the input.
"""

import sys
import time
from typing import Any

import numpy as np
from openpi_client import msgpack_numpy
from websockets.sync.server import ServerConnection, serve


def reply(kind: str, element: dict[str, Any], count: int) -> Any:
    """The server's answer: chunks whose rows tell which question it was, the row, and what the model saw."""
    chunk = np.zeros((3 if kind == "short" else 10, 7), np.float32)
    chunk[:, 0] = count / 100
    chunk[:, 1] = np.arange(len(chunk)) / 100
    chunk[:, 2] = element["observation/image"][0, 0, 0] / 255
    chunk[:, 3] = element["observation/state"][0]
    chunk[:, 6] = 1.0 if element["prompt"].startswith("close") else -1.0
    if kind == "metres":
        chunk[:, 4] = 50.0
    if kind == "slow":
        time.sleep(30)
    if kind == "text":
        return "Traceback: KeyError: 'observation/image'\n"
    if kind == "garbage":
        return b"\xc1"
    return msgpack_numpy.packb({"poses": chunk} if kind == "bare" else {"actions": chunk})


def main(kind: str) -> None:
    def handle(connection: ServerConnection) -> None:
        connection.send(msgpack_numpy.packb({"model": "test"}))
        for count, message in enumerate(connection):
            connection.send(reply(kind, msgpack_numpy.unpackb(message), count))

    with serve(handle, "127.0.0.1", 0, compression=None, max_size=None) as server:
        print(server.socket.getsockname()[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1])

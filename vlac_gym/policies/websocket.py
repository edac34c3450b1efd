"""A policy behind a websocket, in the protocol of openpi's policy server: `PolicyServerModel`, `from_ws`, `from_wss`.

The protocol (openpi `websocket_policy_server.py`): msgpack with numpy arrays; the server's first message is its
metadata; then each request is the model's input, and each reply a map with ``actions``, or a text that says what went
wrong.
"""

__all__ = ["PolicyServerModel", "from_ws", "from_wss"]

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import ArrayLike

from vlac_gym.errors import ConfigError, PolicyError
from vlac_gym.extras import needs
from vlac_gym.policies.preset_policy import PresetPolicy, preset_named
from vlac_gym.specs.options import read_argument

with needs(
    "A policy server's client",
    get='Run: pip install "vlac-gym[openpi]" && pip install --no-deps openpi-client '
    "(it asks for numpy 1, and works with numpy 2)",
):
    from openpi_client import msgpack_numpy
    from websockets.exceptions import WebSocketException
    from websockets.sync.client import connect


class PolicyServerModel:
    """One connection to a policy server, opened on first use; not to be shared by threads.

    Args:
        url: ``"ws://host:8000"``.
        timeout_s: Deadline of connecting and of each reply. The first reply of a server that compiles takes longest.

    Raises:
        ConfigError: A deadline that is not above 0.
    """

    def __init__(self, url: str, timeout_s: float = 120.0) -> None:
        if not timeout_s > 0:
            raise ConfigError(f"Expected timeout_s above 0 for {url}, got {timeout_s}.")
        self.url = url
        self.metadata: dict[str, Any] = {}
        self._timeout_s = timeout_s
        self._connection: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_connection": None}

    def infer_batch(self, inputs: Sequence[dict[str, Any]]) -> list[ArrayLike]:
        """One chunk for each input; the protocol takes one question at a time.

        Raises:
            PolicyError: No connection, no reply in time, or a reply without actions.
        """
        return [self._actions(self._ask(element)) for element in inputs]

    def close(self) -> None:
        """Ends the connection; the next question opens a new one."""
        if self._connection is not None:
            self._connection.__exit__(None, None, None)
            self._connection = None

    def _ask(self, element: Mapping[str, Any]) -> Any:
        try:
            connection = self._connected()
            connection.send(msgpack_numpy.packb(element))
            reply = connection.recv(timeout=self._timeout_s)
        except TimeoutError as e:
            self.close()
            raise PolicyError(
                f"No reply from the policy server at {self.url} in {self._timeout_s:g} s. Is its model still loading "
                "or compiling? Write timeout_s=… in the spec."
            ) from e
        except (OSError, WebSocketException) as e:
            self.close()
            raise PolicyError(
                f"No connection to a policy server at {self.url}: {e}. Is it running, and does it speak openpi's "
                "protocol?"
            ) from e
        if isinstance(reply, str):
            raise PolicyError(f"The policy server at {self.url} failed: {reply.strip()}")
        return self._unpacked(reply)

    def _connected(self) -> Any:
        if self._connection is None:
            # A server that computes in its event loop, as openpi's does, answers no ping meanwhile; and a proxy meant
            # for the web is no way to a policy in the cluster.
            opened = connect(
                self.url,
                compression=None,
                max_size=None,
                open_timeout=self._timeout_s,
                ping_interval=None,
                proxy=None,
            )
            # As `with` does: outside of one, websockets 17 warns.
            self._connection = connection = opened.__enter__()
            self.metadata = self._unpacked(connection.recv(timeout=self._timeout_s))
        return self._connection

    def _unpacked(self, message: Any) -> Any:
        try:
            return msgpack_numpy.unpackb(message)
        except (ValueError, TypeError) as e:
            raise PolicyError(
                f"Expected msgpack from the policy server at {self.url}, got {message[:40]!r}: {e}."
            ) from e

    def _actions(self, reply: Any) -> ArrayLike:
        if not isinstance(reply, Mapping) or "actions" not in reply:
            found = sorted(map(str, reply)) if isinstance(reply, Mapping) else type(reply).__name__
            raise PolicyError(
                f"Expected a reply with 'actions' from the policy server at {self.url}, got {found}."
            )
        actions: ArrayLike = reply["actions"]
        return actions


def from_ws(argument: str) -> PresetPolicy:
    """Builds a policy from what follows `ws:`, as in `ws://host:8000?preset=openpi,chunk_steps=10,timeout_s=300`.

    Raises:
        ConfigError: An option does not fit.
    """
    return _from_url("ws", argument)


def from_wss(argument: str) -> PresetPolicy:
    """The same from what follows `wss:`."""
    return _from_url("wss", argument)


def _from_url(scheme: str, argument: str) -> PresetPolicy:
    where = f"{scheme}://HOST:PORT"
    kinds = {"preset": str, "chunk_steps": int, "timeout_s": float}
    address, options = read_argument(argument, kinds, where)
    if not address.startswith("//") or len(address) < 3:
        raise ConfigError(f"Expected a policy server as {where}, got {scheme}:{address}.")
    preset = preset_named(options.pop("preset", "openpi"), options.pop("chunk_steps", None))
    return PresetPolicy(PolicyServerModel(f"{scheme}:{address}", **options), preset)

"""Every exception that vlac_gym raises on purpose.

VlacGymError
  ConfigError (also ValueError)             an argument, option or file is wrong; nothing was created
  DependencyNotInstalled (also ImportError) a package is missing or of a wrong version; the message has the command
  SimulatorError                            the physics engine failed; the episode is lost, not failed
  PolicyError                               the policy gave no usable action, or its server no answer
  CriticError                               the critic gave no usable answer
    CriticConnectionError                   no connection (retried)
    CriticTimeoutError                      no reply within the deadline (retried)
    CriticOverloadedError                   the server asks to come back later (retried)
    CriticProtocolError                     the two sides speak different protocols
    CriticResponseError                     a reply came, but it holds no valid number
    CriticServerError                       the critic itself failed
  CircuitBreakerError                       too much was lost to the critic: the run stops; never retried
  AdapterContractError                      a trainer broke the contract its adapter was proven against
"""

__all__ = [
    "AdapterContractError",
    "CircuitBreakerError",
    "ConfigError",
    "CriticConnectionError",
    "CriticError",
    "CriticOverloadedError",
    "CriticProtocolError",
    "CriticResponseError",
    "CriticServerError",
    "CriticTimeoutError",
    "DependencyNotInstalled",
    "PolicyError",
    "SimulatorError",
    "VlacGymError",
    "unknown_name",
]

import difflib
from collections.abc import Iterable


class VlacGymError(Exception):
    """Base of every exception raised on purpose by this package."""


class ConfigError(VlacGymError, ValueError):
    """An argument, option or file does not fit; raised before anything is created."""


class DependencyNotInstalled(VlacGymError, ImportError):
    """An optional package is missing, or in a version that does not work; the message names the pip command."""


class SimulatorError(VlacGymError):
    """The simulator failed; the running episode is lost and `reset` starts a new one."""


class PolicyError(VlacGymError):
    """The policy gave no usable action: another shape or range than its conventions say, or its server failed."""


class CriticError(VlacGymError):
    """The critic gave no usable answer."""


class CriticConnectionError(CriticError):
    """No connection to the critic could be made or kept; safe to retry."""


class CriticTimeoutError(CriticError):
    """No reply came within the deadline; safe to retry."""


class CriticOverloadedError(CriticError):
    """The critic's queue is full or it is asleep; safe to retry after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class CriticProtocolError(CriticError):
    """Client and server do not speak the same protocol, or a message is malformed."""


class CriticResponseError(CriticError):
    """A reply came, but it holds no valid number; the message carries the reply."""


class CriticServerError(CriticError):
    """The critic failed while it computed an answer."""


class CircuitBreakerError(VlacGymError):
    """The critic failed more than `CriticFailurePolicy` allows: the run is to stop, and nobody is to try again.

    No `CriticError`, so that nothing that copes with one failure of the critic copes with this.
    """


class AdapterContractError(VlacGymError):
    """A trainer behaves differently from the version its adapter was proven against."""


def unknown_name(kind: str, got: str, known: Iterable[str]) -> ConfigError:
    """Builds the error for a name that is not in a table, with what exists and the nearest name.

    Args:
        kind: What the name names, e.g. ``"task suite"``.
        got: The unknown name.
        known: Every accepted name.
    """
    names = sorted(known)
    near = difflib.get_close_matches(got, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ConfigError(f"Unknown {kind} {got!r}. Available: {', '.join(names)}.{hint}")

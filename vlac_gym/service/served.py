"""Which critic a server serves, in its `/v1/info`: `describe_served`."""

__all__ = ["describe_served"]

from collections.abc import Mapping, Sequence
from typing import Any

from vlac_gym.critic.knowledge import parse_knowledge
from vlac_gym.types import CriticInfo, CriticKnowledge


def describe_served(server: Mapping[str, Any] | None, urls: Sequence[str]) -> CriticInfo:
    """The critic that a server says it serves; `name="remote"` where none has said so.

    Args:
        server: Its answer to `GET /v1/info`, or None.
        urls: Where it is asked; they are added to the details, as `urls`, and the answer as `server`.
    """
    details: dict[str, Any] = {"urls": list(urls)}
    if server is None:
        return CriticInfo("remote", model=urls[0], device="remote", details=details)
    served = server["info"]
    # A later server may know of more kinds of knowledge than this client.
    knows = {k: v for k, v in (served.get("knows") or {}).items() if k in CriticKnowledge.__annotations__}
    return CriticInfo(
        name=str(served["name"]),
        model=str(served["model"]),
        prompt_version=str(served["prompt_version"]),
        device=str(served["device"]),
        details={**(served.get("details") or {}), **details, "server": dict(server)},
        knows=parse_knowledge(knows, f"{urls[0]}/v1/info"),
        inputs=tuple(served.get("inputs") or ()),
        fingerprint=str(server["critic"]),
    )

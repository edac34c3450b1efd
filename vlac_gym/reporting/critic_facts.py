"""Which critic judged, for summaries, plots and pages: `critic_facts`, `critic_title`."""

__all__ = ["critic_facts", "critic_title"]

from pathlib import Path
from typing import Any

from vlac_gym.types import CriticInfo


def critic_facts(info: CriticInfo) -> dict[str, Any]:
    """JSON-serialisable facts that tell one critic from another; of a served one, those of the critic it serves."""
    return {
        "title": critic_title(info),
        "name": info.name,
        "model": info.model,
        "prompt_version": info.prompt_version,
        "fingerprint": info.fingerprint,
        "device": info.device,
        "is_privileged": info.is_privileged,
        "details": info.details,
    }


def critic_title(info: CriticInfo) -> str:
    """Name, the model's own name and where it is served, in one line."""
    parts = [info.name]
    if info.name != "nano" and info.model != "none":
        parts.append(info.model if "://" in info.model else Path(info.model).name)
    if urls := (info.details or {}).get("urls"):
        parts.append(f"at {', '.join(urls)}")
    return " ".join(parts)

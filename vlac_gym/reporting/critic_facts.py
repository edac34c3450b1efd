"""Which critic judged, for summaries, plots and pages: `critic_facts`, `critic_title`."""

__all__ = ["critic_facts", "critic_title"]

from collections.abc import Mapping
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
    """Name, the model's own name and where it is served, in one line; of an ensemble, those of its members."""
    return _title(info.name, info.model, info.details or {})


def _title(name: str, model: str, details: Mapping[str, Any]) -> str:
    parts = [name]
    if members := details.get("members"):
        titles = [_title(own["name"], own["model"], own["details"] or {}) for own in members]
        parts.append(f"({details['combine']} of {' + '.join(titles)})")
    elif name != "nano" and model != "none":
        parts.append(model if "://" in model else Path(model).name)
    if urls := details.get("urls"):
        parts.append(f"at {', '.join(urls)}")
    return " ".join(parts)

"""What a VLAC critic says about itself: `describe_vlac`."""

__all__ = ["describe_vlac"]

from collections.abc import Mapping, Sequence
from typing import Any

from vlac_gym.critic.base import frame_digest
from vlac_gym.critic.vlac import prompts
from vlac_gym.types import CriticInfo, CriticKnowledge, Frame, fingerprint_of


def describe_vlac(
    engine: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    name: str | None,
    model: str | None,
    knows: CriticKnowledge,
    references: Sequence[Frame],
    goal_image: Frame | None,
    out_of_scale_replies: int,
) -> CriticInfo:
    """Engine, model and prompt version; details hold the config and the engine's further facts.

    The fingerprint covers prompts, reading, references, goal image and the model: by the digest of its files where
    the engine reads them, else by its name. Device and dtype are not in it: they change an answer's last digits.

    Args:
        engine: What `Engine.describe` says.
        config: The fields of `VLACConfig`.
        name: What the critic is called; None for the engine's name.
        model: What the model is called; None for the engine's word, which else is `folder` in the details.
        knows: What the model was trained on.
        references: The critic's own.
        goal_image: The critic's own.
        out_of_scale_replies: How many were clipped.
    """
    facts = dict(engine)
    engine_name = str(facts.pop("name", "vlac"))
    engine_model = str(facts.pop("model", "none"))
    model = model or engine_model
    device = str(facts.pop("device", "cpu"))
    reading = {key: value for key, value in config.items() if key != "out_of_scale"}
    shown = [frame_digest(frame).hex() for frame in references]
    goal = None if goal_image is None else frame_digest(goal_image).hex()
    weights = facts.get("weights_digest", [engine_name, model])
    return CriticInfo(
        name=name or engine_name,
        model=model,
        prompt_version=prompts.PROMPT_VERSION,
        device=device,
        details={
            "reading": config["reading"],
            "thinking": config["thinking"],
            "value_rule": config["value_rule"],
            "unfinished_value_limit": config["unfinished_value_limit"],
            "num_references": len(references),
            "has_goal_image": goal_image is not None,
            "out_of_scale_replies": out_of_scale_replies,
            **({} if model == engine_model else {"folder": engine_model}),
            **facts,
        },
        knows=knows,
        inputs=(*(["references"] if references else []), *(["goal_image"] if goal else [])),
        fingerprint=fingerprint_of([prompts.PROMPT_VERSION, reading, shown, goal, weights]),
    )

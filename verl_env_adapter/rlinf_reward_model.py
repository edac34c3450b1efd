"""A critic as a model of RLinf's reward worker: `CriticRewardModel`. Imports torch and RLinf."""

__all__ = ["CriticRewardModel"]

from typing import Any

from verl_env_adapter.settings import to_plain
from verl_env_adapter.sources import RLINF
from vlac_gym.critic.registry import make_critic
from vlac_gym.errors import AdapterContractError
from vlac_gym.extras import needs

with needs("The RLinf adapter", get=RLINF):
    import torch
    from rlinf.models.embodiment.reward import BaseRewardModel

METHODS = ("success_prob", "progress", "value")


class CriticRewardModel(BaseRewardModel):  # type: ignore[misc]
    """Answers the questions of `RewardWorkerCritic`; RLinf places the process and its device.

    Args:
        cfg: ``reward.model``: `model_type: vlac_gym`, `critic` (a spec of `make_critic`).
    """

    def __init__(self, cfg: Any) -> None:
        super().__init__(cfg)
        self._critic = make_critic(str(to_plain(cfg)["critic"]))

    def forward(self, input_data: Any, labels: Any = None) -> dict[str, Any]:
        """Refuses: critics are trained elsewhere."""
        raise NotImplementedError("Train a critic with vlac-gym train-critic or ms-swift, not in RLinf.")

    def compute_reward(self, observations: Any) -> torch.Tensor:
        """Answers one question.

        Args:
            observations: `method` and `arguments`, those of the `Critic` protocol.

        Returns:
            float32 (N,).

        Raises:
            AdapterContractError: Another payload, such as RLinf's own per-chunk one.
        """
        method = observations.get("method") if isinstance(observations, dict) else None
        if method not in METHODS:
            raise AdapterContractError(
                "Expected a question of critic.spec: rlinf_reward_worker:…, got RLinf's own payload, whose answer "
                "would be added to every step of the chunk and end nothing. Set reward.use_reward_model: false."
            )
        answer = getattr(self._critic, method)(**observations["arguments"])
        return torch.from_numpy(answer.copy())

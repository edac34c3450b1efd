"""verl's experimental/vla of January 2026 with a critic, named in ``VERL_USE_EXTERNAL_MODULES``.

verl imports ``verl_env_adapter.experimental_vla.plugin`` at the end of its own import, in the trainer's process and in
every Ray worker; importing is the installation, and loads no part of verl. Proven against volcengine/verl b178a3c
(2026-01-29). The directory was never in a wheel, was broken from 2026-02-09 on and removed on 2026-04-27: use
`verl_env_adapter.verl_vla.plugin` where you can. Beside what `env` lists:

- `EnvLoop` drops the rewards of its envs: they are kept, as `env_rewards` float32 (B, chunks, T);
- `calculate_reward` pays 1 for any `complete`: in training the episode's paid reward takes its place (critic's done
  1.0, value at the step limit), for every chunk of the episode as there; validation keeps the trainer's own, which
  with the simulator's terminations is its success;
- `uid` does not survive the trainer's loop, so that GRPO is impossible there: REINFORCE++ only;
- the trainer's validation score is the success rate times the number of chunks; it is left so.
"""

__all__ = ["episode_rewards", "install", "prepare_loop", "prepare_trainer"]

from typing import Any

from verl_env_adapter.common.import_hooks import after_import, replace_class, wrap_once
from verl_env_adapter.common.libero_loader import preserved_init_state_loader
from verl_env_adapter.common.settings import Phase
from verl_env_adapter.common.sources import EXPERIMENTAL_VLA
from vlac_gym.errors import AdapterContractError
from vlac_gym.extras import needs

_PACKAGE = "verl.experimental.vla"
_MARK = "_vlac_gym"
REWARD_KEY = "env_rewards"


def install() -> None:
    """Prepares the trainer's modules for the moment they are imported; safe to call twice."""
    module = f"{_PACKAGE}.envs.libero_env.libero_env"
    replace_class(module, "LiberoEnv", _env_class, around=preserved_init_state_loader)
    after_import(f"{_PACKAGE}.env_loop", prepare_loop)
    after_import(f"{_PACKAGE}.rob_ray_trainer", prepare_trainer)


def prepare_loop(module: Any) -> None:
    """Lets `EnvLoop` keep its envs' rewards.

    Raises:
        AdapterContractError: This verl has no such loop.
    """
    loop = _class(module, "EnvLoop", "_collate_trajectories")
    wrap_once(loop, "_collate_trajectories", _MARK, _keeping_rewards)


def prepare_trainer(module: Any) -> None:
    """Lets `RobRayPPOTrainer` tell its envs the phase and learn from their rewards.

    Raises:
        AdapterContractError: This verl has no such trainer.
    """
    trainer = _class(module, "RobRayPPOTrainer", "_validate", "_reset_envs")
    wrap_once(trainer, "__init__", _MARK, _learning_from_envs)
    wrap_once(trainer, "_validate", _MARK, _in_validation)
    wrap_once(trainer, "_reset_envs", _MARK, _telling_the_phase)


def episode_rewards(data: Any, return_dict: bool = False) -> Any:
    """What the wrapper paid in each episode, for every chunk: float32 (B, chunks), in place of `calculate_reward`.

    Raises:
        AdapterContractError: The batch has no rewards of its envs.
    """
    if REWARD_KEY not in data.batch:
        raise AdapterContractError(
            f"Expected {REWARD_KEY!r} in the trainer's batch, got {sorted(data.batch.keys())}: the env loop runs "
            "without verl_env_adapter.experimental_vla.plugin, and the critic's value would be lost."
        )
    paid = data.batch[REWARD_KEY]
    rewards = paid.sum(dim=(1, 2)).unsqueeze(1).expand(-1, paid.shape[1]).contiguous()
    return {"reward_tensor": rewards} if return_dict else rewards


def _env_class() -> type:
    from verl_env_adapter.experimental_vla.env import VLACChunkEnv

    return VLACChunkEnv


def _class(module: Any, name: str, *methods: str) -> Any:
    found = getattr(module, name, None)
    missing = [method for method in methods if not hasattr(found, method)]
    if missing:
        raise AdapterContractError(
            f"Expected {name} with {missing} in {module.__name__}, as in verl b178a3c; this verl differs."
        )
    return found


def _keeping_rewards(collate: Any) -> Any:
    def with_rewards(self: Any, trajectories: Any, *args: Any, **kwargs: Any) -> Any:
        with needs("The experimental/vla adapter", get=EXPERIMENTAL_VLA):
            import torch

        # Before the original, which concatenates the stages in place.
        stages = [trajectories[stage] for stage in range(self.stage_num)]
        rewards = [torch.cat([slot["rew"] for slot in slots]) for slots in zip(*stages, strict=True)]
        output = collate(self, trajectories, *args, **kwargs)
        output.batch[REWARD_KEY] = torch.stack(rewards, dim=1).float()
        return output

    return with_rewards


def _learning_from_envs(init: Any) -> Any:
    def init_with_rewards(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.reward_fn = episode_rewards

    return init_with_rewards


def _in_validation(validate: Any) -> Any:
    def validate_on_simulator(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._vlac_gym_phase = "validate"
        try:
            return validate(self, *args, **kwargs)
        finally:
            self._vlac_gym_phase = "train"

    return validate_on_simulator


def _telling_the_phase(reset_envs: Any) -> Any:
    def reset_in_phase(self: Any, gen_batch: Any) -> Any:
        from verl_env_adapter.experimental_vla.env import tagged

        phase: Phase = getattr(self, "_vlac_gym_phase", "train")
        own = gen_batch.non_tensor_batch
        told = {**own, "task_ids": tagged(phase, own["task_ids"])}
        gen_batch.non_tensor_batch = told
        try:
            return reset_envs(self, gen_batch)
        finally:
            gen_batch.non_tensor_batch = own

    return reset_in_phase


install()

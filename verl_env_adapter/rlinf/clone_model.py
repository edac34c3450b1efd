"""The clone policy as a model of RLinf's: `CloneModel`, registered as ``vlac_clone``.

It is small enough to be cloned from a few demonstrations and trained by RLinf on any machine; a vision-language-action
model takes its place by another `model_type`. RLinf calls `predict_action_batch` in the rollout and `default_forward`
in the update.
"""

__all__ = ["CloneModel", "build"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from verl_env_adapter.common.sources import RLINF
from verl_env_adapter.rlinf.options import Learn
from vlac_gym.checks import check_choice
from vlac_gym.clone.policy import ClonePolicy, load_policy, untrained_policy
from vlac_gym.envs.libero.tasks import list_tasks
from vlac_gym.envs.warp.scene_files import list_scene_folders, read_task
from vlac_gym.errors import ConfigError, unknown_name
from vlac_gym.extras import needs

with needs("The RLinf adapter", get=RLINF):
    import torch
    from rlinf.models.embodiment.base_policy import BasePolicy
    from torch import Tensor, nn
    from torch.distributions import Normal
    from torch.nn import functional

_PICTURES = {"agentview": "main_images", "wrist": "wrist_images"}
"""The policy's camera -> RLinf's name."""


class CloneModel(nn.Module, BasePolicy):  # type: ignore[misc]
    """A Gaussian around the policy's means; N is the number of envs or of samples, K that of draws per chunk.

    With ``learn="all"`` each of the T actions has noise of its own: K is T. With ``learn="offset"`` the chunk's mean
    action is drawn, and all actions move along: K is 1. What is learned then is an offset for all actions of the chunk
    (`ClonePolicy.add_offset`), on a policy that stays as it is, as by ``examples/train_ppo.py --learn offset``, but
    without a clock: RLinf tells a model nothing of the time, so that what the offset reads off it stays nothing.

    Args:
        policy: Whose actor is trained. Its own value head is dropped.
        texts: The instruction of each of the policy's tasks, in its order.
        add_value_head: Give it the value head that RLinf's PPO wants, with a value for each draw, on features that its
            loss does not train.
        log_std: Logarithm of the draws' standard deviation, not trained; None keeps the policy's.
        learn: `all` weights of the policy, or its `offset`.

    Raises:
        ConfigError: The policy's offset has learned from a clock elsewhere.
    """

    def __init__(
        self,
        policy: ClonePolicy,
        texts: Sequence[str],
        *,
        add_value_head: bool = True,
        log_std: float | None = None,
        learn: Learn = "all",
    ) -> None:
        super().__init__()
        if policy.reads_time:
            raise ConfigError(
                "Expected a policy that does not read the time, of which RLinf tells a model nothing, got one whose "
                "offset has learned from its clock. Start from the policy that it was trained from."
            )
        self.policy, self.texts, self.learn = policy, tuple(texts), learn
        if learn == "offset":
            policy.requires_grad_(False).add_offset().requires_grad_(True)
        self.policy.log_std.requires_grad_(False)
        if log_std is not None:
            self.policy.log_std.fill_(log_std)
        width = policy.mean.in_features
        self.policy.value = nn.Sequential()  # so that it hands out the features, without their gradient
        if add_value_head:
            # RLinf finds the value's parameters, and whether to ask for bootstrap values, by this name.
            draws = policy.chunk_size if learn == "all" else 1
            self.value_head = nn.Sequential(nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, draws))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """RLinf's dispatch, to `default_forward`: what FSDP wraps is called itself."""
        return BasePolicy.forward(self, *args, **kwargs)

    def predict_action_batch(
        self, env_obs: Mapping[str, Any], do_sample: bool = True, **_: Any
    ) -> tuple[Tensor, dict[str, Any]]:
        """Acts; by the means unless `do_sample`.

        Args:
            env_obs: `RolloutEnv`'s observation of N envs.
            do_sample: RLinf's ``sampling_params.do_sample`` in training; in evaluation, ``temperature_eval > 0``.

        Returns:
            Actions float32 (N, T, 7) in [-1, 1], and what RLinf keeps: `prev_logprobs` (N, K, 7), `prev_values` (N, K)
            and `forward_inputs`, the inputs of `default_forward`.

        Raises:
            ConfigError: The policy does not know the task, or the env does not show one of its cameras.
        """
        inputs = self._inputs(env_obs)
        noise, values, means = self._act(inputs)
        drawn = noise.sample() if do_sample else noise.mean
        inputs["action"] = drawn.flatten(1)
        return (means + drawn - noise.mean).clamp(-1.0, 1.0), {
            "prev_logprobs": noise.log_prob(drawn),
            "prev_values": values,
            "forward_inputs": inputs,
        }

    def default_forward(
        self,
        forward_inputs: Mapping[str, Tensor],
        compute_logprobs: bool = True,
        compute_entropy: bool = True,
        compute_values: bool = True,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Log-probabilities and entropy (N, K, 7) and values (N, K) of recorded draws under the policy as it is."""
        noise, values = self._act(forward_inputs)[:2]
        result = {}
        if compute_logprobs:
            result["logprobs"] = noise.log_prob(forward_inputs["action"].view_as(noise.mean))
        if compute_entropy:
            result["entropy"] = noise.entropy()
        if compute_values:
            result["values"] = values
        return result

    def _act(self, inputs: Mapping[str, Tensor]) -> tuple[Any, Tensor, Tensor]:
        """The distribution of what is drawn (N, K, 7), values (N, K), and the actions without noise (N, T, 7)."""
        images = {camera: inputs[_PICTURES[camera]] for camera in self.policy.cameras}
        means, log_std, features = self.policy(images, inputs["states"], inputs["task"])
        centre = means if self.learn == "all" else means.mean(1, keepdim=True)
        noise: Any = Normal(centre, log_std.exp().expand_as(centre))  # its methods are not annotated
        if hasattr(self, "value_head"):
            return noise, self.value_head(features), means
        return noise, means.new_zeros(centre.shape[:2]), means

    def _inputs(self, env_obs: Mapping[str, Any]) -> dict[str, Tensor]:
        """What the batch keeps: pictures as the policy sees them, uint8 (N, S, S, 3), state and the task's one-hot."""
        device = self.policy.log_std.device
        names = [_PICTURES[camera] for camera in self.policy.cameras]
        for name in names:
            if env_obs.get(name) is None:
                raise ConfigError(
                    f"The policy looks through {list(self.policy.cameras)}, but the env shows no {name}. Give "
                    "vlac_gym.env.cameras the same."
                )
        inputs = {name: _as_seen(env_obs[name].to(device), self.policy.image_size) for name in names}
        inputs["states"] = env_obs["states"].float().to(device)
        numbers = [self._number_of(text) for text in env_obs["task_descriptions"]]
        inputs["task"] = self.policy.one_hot(torch.tensor(numbers)).to(device)
        return inputs

    def _number_of(self, text: str) -> int:
        if text not in self.texts:
            raise unknown_name("task of the policy", text, self.texts)
        return self.texts.index(text)


def task_texts(names: Sequence[str]) -> list[str]:
    """The instructions of tasks named ``suite:id``, from LIBERO's files.

    Raises:
        ConfigError: There is no such suite or task.
        DependencyNotInstalled: LIBERO is not installed.
    """
    texts = []
    for name in names:
        suite, _, number = name.partition(":")
        language = {str(task.task_id): task.language for task in list_tasks(suite)}
        if number not in language:
            raise unknown_name(f"task of {suite}", number, language)
        texts.append(language[number])
    return texts


def scene_texts(names: Sequence[str], scenes: str) -> list[str]:
    """The instructions of tasks named ``suite:id``, of those that were exported; the name itself of the others.

    Raises:
        ConfigError: `scenes` is no folder of exported tasks.
    """
    exported = {
        f"{suite}:{task_id}": str(read_task(folder)["task"])
        for (suite, task_id), folder in list_scene_folders(Path(scenes)).items()
    }
    return [exported.get(name, name) for name in names]


def build(cfg: Any, torch_dtype: Any = None) -> CloneModel:
    """What RLinf calls for ``model_type: vlac_clone``, with ``actor.model``.

    Its keys: `model_path`, the folder of a clone policy, where an empty one stands for an untrained policy for `tasks`,
    `cameras` and `image_size`; `num_action_chunks`, `add_value_head`, `log_std`, `learn`; `scenes`, exported tasks
    whose texts are read where LIBERO is not installed.

    Raises:
        ConfigError: The folder holds no policy or one that reads the time, its chunk is of another length than
            `num_action_chunks`, or `learn` is neither ``all`` nor ``offset``.
    """
    learn: Any = cfg.get("learn") or "all"
    check_choice("actor.model.learn", learn, get_args(Learn))
    policy = load_policy(cfg.model_path) if cfg.get("model_path") else _untrained(cfg)
    if policy.chunk_size != cfg.num_action_chunks:
        raise ConfigError(
            f"Expected actor.model.num_action_chunks {policy.chunk_size} as in {cfg.model_path!r}, got "
            f"{cfg.num_action_chunks}."
        )
    scenes = cfg.get("scenes")
    return CloneModel(
        policy,
        scene_texts(policy.tasks, scenes) if scenes else task_texts(policy.tasks),
        add_value_head=bool(cfg.get("add_value_head")),
        log_std=cfg.get("log_std"),
        learn=learn,
    )


def _untrained(cfg: Any) -> ClonePolicy:
    """The same in each process: RLinf hands what is trained from the actor to the rollout, and frozen weights never."""
    side = cfg.get("image_size", 128)
    return untrained_policy(list(cfg.tasks), cfg.num_action_chunks, side, list(cfg.cameras), seed=0)


def _as_seen(pictures: Tensor, side: int) -> Tensor:
    """RLinf's pictures, upright but mirrored, uint8 (N, H, W, 3), as upright ones of the policy's size."""
    planes = pictures.flip(2).permute(0, 3, 1, 2).float()
    planes = functional.adaptive_avg_pool2d(planes, side)
    return planes.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

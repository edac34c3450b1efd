"""RLinf's rollout worker without a model: `FixedPolicy`. Everything but the forward pass is RLinf's own code."""

from typing import Any

import torch
from rlinf.scheduler import Worker
from rlinf.workers.rollout.hf.huggingface_worker import MultiStepRolloutWorker


class FixedPolicy(MultiStepRolloutWorker):
    """Moves the arm down; all log-probabilities are 0 and all values 0.5."""

    def __init__(self, cfg: Any) -> None:
        # RLinf's own constructor wants an accelerator and a weight syncer.
        Worker.__init__(self)
        self.cfg = cfg
        self.model_cfg = cfg.actor.model
        self.algorithm_cfg = cfg.algorithm
        self.num_pipeline_stages = cfg.rollout.pipeline_stage_num
        self.enable_offload = self.env_decoupled_mode = False
        self.rollout_epoch = cfg.env.train.rollout_epoch
        self.eval_rollout_epoch = cfg.env.eval.rollout_epoch
        self.train_batch_size = cfg.env.train.total_num_envs // self.num_pipeline_stages
        self.eval_batch_size = cfg.env.eval.total_num_envs // self.num_pipeline_stages
        chunk = cfg.actor.model.num_action_chunks
        self.n_train_chunk_steps = cfg.env.train.max_steps_per_rollout_epoch // chunk
        self.n_eval_chunk_steps = cfg.env.eval.max_steps_per_rollout_epoch // chunk
        self.collect_prev_infos = True
        self.expert_model = None
        self.version = 0

    def init_worker(self) -> None:
        self.hf_model = torch.nn.Module()
        self.hf_model.value_head = torch.nn.Identity()  # so that RLinf asks for bootstrap values

    def predict(self, env_obs: dict[str, Any], mode: str = "train") -> tuple[torch.Tensor, dict[str, Any]]:
        count = len(env_obs["states"])
        assert env_obs["main_images"].dtype == torch.uint8
        assert all(env_obs["task_descriptions"])
        actions = torch.zeros(count, self.model_cfg.num_action_chunks, self.model_cfg.action_dim)
        actions[..., 2] = -1.0
        return actions, {
            "prev_logprobs": torch.zeros(count, self.model_cfg.num_action_chunks),
            "prev_values": torch.full((count, 1), 0.5),
            "forward_inputs": {"action": actions.reshape(count, -1), "states": env_obs["states"]},
        }

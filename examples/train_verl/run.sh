#!/usr/bin/env bash
# Trains a vision-language policy on LIBERO with GRPO and a critic's rewards, on one node of 8 cards.
#
#   MODEL=/models/my-qwen2.5-vl-3b VLAC_CRITIC=http://critic-host:8400 examples/train_verl/run.sh [overrides …]
#
# `… run.sh --cfg job` prints the composed configuration and starts nothing.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
: "${MODEL:?Set MODEL to a vision-language checkpoint, fine-tuned to answer with actions as integers}"
DATA="${DATA:-runs/verl_data}"
PYTHON="${PYTHON:-python}"
export VLAC_CRITIC="${VLAC_CRITIC:-http://127.0.0.1:8400}"
export MUJOCO_GL="${MUJOCO_GL:-egl}"
export PYOPENGL_PLATFORM="${PYOPENGL_PLATFORM:-$MUJOCO_GL}"

if [[ ! -f "$DATA/train.parquet" ]]; then
  "$PYTHON" -m verl_env_adapter.verl.dataset --out "$DATA" --suite libero_spatial --val-starts 10
fi

exec "$PYTHON" -m verl.trainer.main_ppo \
  algorithm.adv_estimator=grpo \
  data.train_files="$DATA/train.parquet" \
  data.val_files="$DATA/val.parquet" \
  data.train_batch_size=16 \
  data.max_prompt_length=1024 \
  data.max_response_length=320 \
  actor_rollout_ref.model.path="$MODEL" \
  actor_rollout_ref.actor.optim.lr=1e-6 \
  actor_rollout_ref.actor.ppo_mini_batch_size=16 \
  actor_rollout_ref.actor.use_dynamic_bsz=true \
  actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
  actor_rollout_ref.actor.use_kl_loss=false \
  actor_rollout_ref.rollout.name=vllm \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.rollout.temperature=1.0 \
  actor_rollout_ref.rollout.gpu_memory_utilization=0.35 \
  actor_rollout_ref.rollout.calculate_log_probs=true \
  actor_rollout_ref.rollout.val_kwargs.temperature=0 \
  actor_rollout_ref.rollout.agent.num_workers=8 \
  actor_rollout_ref.rollout.agent.default_agent_loop=vlac_gym \
  actor_rollout_ref.rollout.agent.agent_loop_config_path="$here/config.yaml" \
  trainer.v1.sampler.sync_refill_failed_groups=true \
  trainer.project_name=vlac_gym \
  trainer.experiment_name=libero_spatial_grpo \
  trainer.logger='[console]' \
  trainer.nnodes=1 \
  trainer.n_gpus_per_node=8 \
  trainer.test_freq=10 \
  trainer.save_freq=50 \
  trainer.total_epochs=20 \
  "$@"

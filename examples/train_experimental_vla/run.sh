#!/usr/bin/env bash
# Trains OpenVLA-OFT with REINFORCE++ on a critic's verdicts, from a checkout of verl at b178a3c:
#   VERL=/path/to/verl POLICY=/path/to/openvla-oft DATA=/path/to/data VLAC_CRITIC=http://critic:8400 ./run.sh
# ./run.sh --cfg job  composes and prints the configuration, and starts nothing.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
data="${DATA:?Set DATA to the folder that make_dataset.py wrote}"
gpus="${GPUS:-8}"
env_gpus="${ENV_GPUS:-4}"

# verl's configuration names its own folders relative to the checkout.
cd "${VERL:?Set VERL to a checkout of verl at b178a3c}"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
# In the trainer's own process too, not only in Ray's workers.
export VERL_USE_EXTERNAL_MODULES=verl_env_adapter.experimental_vla.plugin

exec "${PYTHON:-python}" -m verl.experimental.vla.main_ppo \
  --config-dir "$(dirname "$here")" \
  +train_experimental_vla=config \
  env.train.vlac_gym.critic.spec="${VLAC_CRITIC:-http://127.0.0.1:8400}" \
  data.train_files="$data/train.parquet" \
  data.val_files="$data/test.parquet" \
  data.train_batch_size=8 \
  data.val_batch_size=8 \
  data.max_prompt_length=256 \
  data.max_response_length=128 \
  actor_rollout_ref.rollout.n=8 \
  actor_rollout_ref.model.path="${POLICY:?Set POLICY to the path of an OpenVLA-OFT checkpoint}" \
  actor_rollout_ref.model.use_remove_padding=False \
  actor_rollout_ref.model.enable_gradient_checkpointing=False \
  actor_rollout_ref.actor.fsdp_config.model_dtype=bfloat16 \
  actor_rollout_ref.actor.optim.lr=5e-6 \
  actor_rollout_ref.actor.ppo_mini_batch_size=128 \
  actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=2 \
  actor_rollout_ref.actor.clip_ratio_high=0.28 \
  actor_rollout_ref.actor.clip_ratio_low=0.2 \
  actor_rollout_ref.actor.entropy_coeff=0. \
  actor_rollout_ref.rollout.name=hf \
  actor_rollout_ref.rollout.temperature=1.6 \
  actor_rollout_ref.rollout.free_cache_engine=False \
  actor_rollout_ref.rollout.log_prob_micro_batch_size=16 \
  actor_rollout_ref.ref.log_prob_micro_batch_size=16 \
  trainer.logger='[console]' \
  trainer.project_name=vlac-gym \
  trainer.experiment_name=experimental-vla-critic \
  trainer.default_local_dir="${OUTPUT:-./outputs/vlac}" \
  trainer.n_gpus_per_node="$gpus" \
  +trainer.n_env_gpus_per_node="$env_gpus" \
  +trainer.n_rollout_gpus_per_node="$((gpus - env_gpus))" \
  trainer.nnodes=1 \
  trainer.save_freq=30 \
  trainer.test_freq=30 \
  trainer.total_training_steps=10000 \
  trainer.val_before_train=False \
  "$@"

#!/usr/bin/env bash
# Success by the simulator, no critic:  POLICY=/path/to/checkpoint ./eval.sh [hydra overrides]
set -euo pipefail
chunk="${CHUNK:-10}"
limit="${MAX_EPISODE_STEPS:-220}"

exec vvla-eval \
  model/adapter@cluster.actor_rollout_ref.model.adapter=pi0 \
  cluster.actor_rollout_ref.model.path="${POLICY:?Set POLICY to the path of a checkpoint}" \
  cluster.actor_rollout_ref.model.adapter.embodiment=libero \
  cluster.actor_rollout_ref.model.adapter.action_chunk_size="$chunk" \
  cluster.env.env_loop.max_interactions="$(((limit + chunk - 1) / chunk))" \
  cluster.env.env_worker.simulator.libero._target_=verl_env_adapter.verl_vla.plugin.VLACLiberoConfig \
  "+cluster.env.env_worker.simulator.libero.vlac_gym={mode: eval, env: {suite: ${SUITE:-libero_spatial}, chunk: $chunk, max_episode_steps: $limit}}" \
  cluster.env.env_worker.num_envs="${ENVS_PER_STAGE:-2}" \
  cluster.resource.env.device=cpu \
  cluster.resource.env.workers_per_node="${ENV_WORKERS:-16}" \
  cluster.resource.model.gpus_per_node="${GPUS:-8}" \
  output_dir="${OUTPUT:-./outputs/vlac-eval}" \
  "$@"

#!/usr/bin/env bash
# Trains pi0.5 on a critic's verdicts:  POLICY=/path/to/pi05 VLAC_CRITIC=http://critic:8400 ./run.sh [hydra overrides]
# ./run.sh --cfg job  composes and prints the configuration, and starts nothing.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

exec vvla-train-sac \
  --config-dir "$here" \
  --config-name config \
  cluster.actor_rollout_ref.model.path="${POLICY:?Set POLICY to the path of a pi0.5 LIBERO checkpoint}" \
  cluster.env.env_worker.simulator.libero.vlac_gym.critic.spec="${VLAC_CRITIC:-http://127.0.0.1:8400}" \
  cluster.resource.model.gpus_per_node="${GPUS:-8}" \
  cluster.resource.env.workers_per_node="${ENV_WORKERS:-16}" \
  cluster.env.env_worker.num_envs="${ENVS_PER_STAGE:-2}" \
  "$@"

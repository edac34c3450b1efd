#!/usr/bin/env bash
# One host of 8 H100 (80 GB) for everything: OpenVLA-OFT with GRPO, and on each card VLAC-2B, which sleeps in the update.
#   SIMPLEVLA=/path/to/SimpleVLA-RL SFT_MODEL_PATH=/path/to/model VLAC=/path/to/vlac-2b ./run_shared_cards.sh [overrides]
# ./run_shared_cards.sh --dry-run [overrides]  names the servers, checks the configuration, starts nothing.
# VLAC_GYM=/path/to/another/environment/bin/vlac-gym serves the critic from an environment of its own.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
: "${SIMPLEVLA:?Set SIMPLEVLA to a checkout of SimpleVLA-RL at 7c51662}"
export VLAC_GYM_SETTINGS="$here/shared_cards.yaml" NUM_GPUS=8 EXTERNAL_LIB=verl_env_adapter.simplevla.sleeping

is_started=1
[[ "${1:-}" != --dry-run && "${1:-}" != --cfg ]] || is_started=""
servers=()
trap '[[ ${#servers[@]} -eq 0 ]] || kill "${servers[@]}"' EXIT
for card in 0 1 2 3 4 5 6 7; do
  command=("${VLAC_GYM:-vlac-gym}" serve --critic "transformers:${VLAC:-/models/vlac-2b}" --port "840$card" --gpu-memory-fraction 0.18)
  if [[ -n "$is_started" ]]; then
    CUDA_VISIBLE_DEVICES="$card" "${command[@]}" &
    servers+=("$!")
  else
    echo "CUDA_VISIBLE_DEVICES=$card ${command[*]}" >&2
  fi
done
"$here/run_openvla_oft_rl.sh" "$@"

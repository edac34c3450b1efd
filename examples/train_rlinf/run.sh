#!/usr/bin/env bash
# Trains OpenVLA-OFT on LIBERO-Spatial with RLinf, GRPO and a critic's rewards, on one node.
#
#   RLINF=/path/to/RLinf MODEL=/models/openvla-oft-libero-spatial VLAC_CRITIC=http://critic-host:8400 \
#     examples/train_rlinf/run.sh [overrides …]
#
# `… run.sh --dry-run [overrides …]` composes and checks the configuration and starts nothing.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
: "${RLINF:?Set RLINF to a checkout of RLinf v0.3: its recipes and entry scripts are not in the wheel}"
: "${MODEL:?Set MODEL to an OpenVLA-OFT checkpoint for LIBERO-Spatial}"
PYTHON="${PYTHON:-python}"
export RLINF_EXT_MODULE=verl_env_adapter.rlinf.plugin EMBODIED_PATH="$RLINF/examples/embodiment" MODEL
export VLAC_CRITIC="${VLAC_CRITIC:-http://127.0.0.1:8400}" ROBOT_PLATFORM="${ROBOT_PLATFORM:-LIBERO}"
export MUJOCO_GL="${MUJOCO_GL:-egl}"
export PYOPENGL_PLATFORM="${PYOPENGL_PLATFORM:-$MUJOCO_GL}"

dry_run=""
if [[ "${1:-}" == "--dry-run" ]]; then
  dry_run=--show
  shift
fi
# RLinf only warns when its extension module does not load, so everything is checked here first.
"$PYTHON" -m verl_env_adapter.rlinf.check --config-path "$here" --config-name "${CONFIG:-config}" $dry_run -- "$@"
[[ -z "$dry_run" ]] || exit 0

LOG_DIR="${LOG_DIR:-runs/rlinf-$(date +%Y%m%d-%H%M%S)}"
export LOG_DIR
exec "$PYTHON" "$RLINF/${ENTRY:-examples/embodiment/train_embodied_agent.py}" \
  --config-path "$here" --config-name "${CONFIG:-config}" runner.logger.log_path="$LOG_DIR" "$@"

#!/usr/bin/env bash
# Trains on LIBERO-Spatial with RLinf and a critic's rewards, on one node: OpenVLA-OFT with GRPO, or a small policy.
#
#   RLINF=/path/to/RLinf MODEL=/models/openvla-oft-libero-spatial VLAC_CRITIC=http://critic-host:8400 \
#     examples/train_rlinf/run.sh [overrides …]
#   RLINF=/path/to/RLinf CONFIG=ppo START=/path/to/clone-policy examples/train_rlinf/run.sh [overrides …]
#   RLINF=/path/to/RLinf CONFIG=worlds SCENES=/path/to/scenes START=… examples/train_rlinf/run.sh [overrides …]
#
# CONFIG=ppo, grpo and worlds train the small policy, which needs no download; nano, in the env worker, is its critic unless
# VLAC_CRITIC names another. With worlds its envs are on the GPU, of the tasks that `vlac-gym export-scenes` wrote.
# `… run.sh --dry-run [overrides …]` composes and checks the configuration and starts nothing.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
: "${RLINF:?Set RLINF to a checkout of RLinf v0.3: its recipes and entry scripts are not in the wheel}"
CONFIG="${CONFIG:-config}"
START="${START:+$(realpath "$START")}"  # RLinf's workers may have another working directory
case "$CONFIG" in
  ppo | grpo) export START ;;
  worlds)
    : "${SCENES:?Set SCENES to the folder that vlac-gym export-scenes wrote}"
    SCENES="$(realpath "$SCENES")"
    export SCENES START
    ;;
  *)
    : "${MODEL:?Set MODEL to an OpenVLA-OFT checkpoint for LIBERO-Spatial, or CONFIG to ppo, grpo or worlds for a small policy}"
    export MODEL VLAC_CRITIC="${VLAC_CRITIC:-http://127.0.0.1:8400}"
    ;;
esac
PYTHON="${PYTHON:-python}"
export EMBODIED_PATH="$RLINF/examples/embodiment" ROBOT_PLATFORM="${ROBOT_PLATFORM:-LIBERO}"
export RLINF_EXT_MODULE="${RLINF_EXT_MODULE:-verl_env_adapter.rlinf.plugin}"
export MUJOCO_GL="${MUJOCO_GL:-egl}"
export PYOPENGL_PLATFORM="${PYOPENGL_PLATFORM:-$MUJOCO_GL}"

if [[ "${1:-}" == "--dry-run" ]]; then
  shift
  exec "$PYTHON" -m verl_env_adapter.rlinf.check --config-path "$here" --config-name "$CONFIG" --show -- "$@"
fi

LOG_DIR="${LOG_DIR:-runs/rlinf-$(date +%Y%m%d-%H%M%S)}"
export LOG_DIR
# RLinf only warns when its extension module does not load, and does not load it here: so not its script alone.
exec "$PYTHON" -m verl_env_adapter.rlinf.launch "$RLINF/${ENTRY:-examples/embodiment/train_embodied_agent.py}" \
  --config-path "$here" --config-name "$CONFIG" runner.logger.log_path="$LOG_DIR" "$@"

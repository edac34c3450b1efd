#!/usr/bin/env bash
# Evaluates on every initial state of LIBERO-Spatial by the simulator; the critic is never asked.
#
#   RLINF=/path/to/RLinf MODEL=/models/openvla-oft-libero-spatial CKPT=runs/…/full_weights.pt \
#     examples/train_rlinf/eval.sh [--dry-run] [overrides …]
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
CONFIG=eval ENTRY=evaluations/eval_embodied_agent.py exec "$here/run.sh" "$@"

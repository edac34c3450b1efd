#!/usr/bin/env bash
# Success rate of a policy by the simulator's verdict; the critic is not asked.
#
#   MODEL=/models/my-qwen2.5-vl-3b examples/train_verl/eval.sh [overrides …]
set -euo pipefail
exec "$(dirname "$0")/run.sh" \
  trainer.val_only=true \
  trainer.val_before_train=true \
  trainer.experiment_name=libero_spatial_eval \
  "$@"

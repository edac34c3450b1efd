#!/usr/bin/env bash
# Success by the simulator, no critic; the same variables as run.sh. The trainer reports it as
# val-core/*/reward/mean@N, times the number of chunks (64 at 512 steps and chunks of 8).
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "$here/run.sh" trainer.val_before_train=True trainer.val_only=True "$@"

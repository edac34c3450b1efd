#!/usr/bin/env bash
# Success by the simulator, no critic; the same variables as run_openvla_oft_rl.sh. See test_score/<suite>.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
exec "$here/run_openvla_oft_rl.sh" trainer.val_only=True "$@"

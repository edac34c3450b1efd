#!/usr/bin/env bash
# Drives the real workers of the trainers that are on no package index, each from a checkout that is named:
#
#   VERL_VLA_PATH=/path/to/verl-vla VERL_EXPERIMENTAL_VLA_PATH=/path/to/verl SIMPLEVLA_PATH=/path/to/SimpleVLA-RL \
#     scripts/test_checkouts.sh [pytest options …]
#
# Proven commits: verl-vla 8a18e3f, verl b178a3c, SimpleVLA-RL 7c51662. Checkouts that are not named are left out.
# VERL_VLA_ENV=DIR chooses the environment's folder: verl 0.7.1 with a CPU's torch serves all three.
set -euo pipefail
cd "$(dirname "$0")/.."
dir="${VERL_VLA_ENV:-.venv-verl-vla}"
MUJOCO_GL="${MUJOCO_GL:-egl}"
export MUJOCO_GL PYOPENGL_PLATFORM="${PYOPENGL_PLATFORM:-$MUJOCO_GL}" RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1

if [[ -z "${VERL_VLA_PATH:-}${VERL_EXPERIMENTAL_VLA_PATH:-}${SIMPLEVLA_PATH:-}" ]]; then
  echo "Name at least one checkout: VERL_VLA_PATH, VERL_EXPERIMENTAL_VLA_PATH, SIMPLEVLA_PATH." >&2
  exit 2
fi
scripts/make_trainer_env.sh verl-vla "$dir"

# One process for each: two of the checkouts are a package named verl, and so is the environment's own.
status=0
run() {
  [[ -z "$1" ]] || "$dir/bin/python" -m pytest -m trainer "tests/trainers/$2" "${@:3}" || status=1
}
run "${VERL_VLA_PATH:-}" verl_vla "$@"
run "${SIMPLEVLA_PATH:-}" simplevla "$@"
run "${VERL_EXPERIMENTAL_VLA_PATH:-}" experimental_vla "$@"
exit "$status"

#!/usr/bin/env bash
# Drives the real workers of the trainers that are on no package index, each from a checkout that is named:
#
#   VERL_VLA_PATH=/path/to/verl-vla VERL_EXPERIMENTAL_VLA_PATH=/path/to/verl SIMPLEVLA_PATH=/path/to/SimpleVLA-RL \
#     scripts/test_checkouts.sh [pytest options …]
#
# Proven commits: verl-vla 8a18e3f, verl b178a3c, SimpleVLA-RL 7c51662. Checkouts that are not named are left out.
# Environments are built if needed: verl 0.7.1 with a CPU's torch serves the first two (VERL_VLA_ENV=DIR chooses its folder);
# SimpleVLA-RL's has tensorflow and timm besides (SIMPLEVLA_ENV=DIR).
set -euo pipefail
cd "$(dirname "$0")/.."
MUJOCO_GL="${MUJOCO_GL:-egl}"
export MUJOCO_GL PYOPENGL_PLATFORM="${PYOPENGL_PLATFORM:-$MUJOCO_GL}" RAY_USAGE_STATS_ENABLED=0 OMP_NUM_THREADS=1

if [[ -z "${VERL_VLA_PATH:-}${VERL_EXPERIMENTAL_VLA_PATH:-}${SIMPLEVLA_PATH:-}" ]]; then
  echo "Name at least one checkout: VERL_VLA_PATH, VERL_EXPERIMENTAL_VLA_PATH, SIMPLEVLA_PATH." >&2
  exit 2
fi

# One process for each: two of the checkouts are a package named verl, and so is the environment's own.
status=0
run() {
  local checkout="$1" recipe="$2" dir="$3" tests="$4"
  [[ -n "$checkout" ]] || return 0
  scripts/make_trainer_env.sh "$recipe" "$dir"
  "$dir/bin/python" -m pytest -m trainer "tests/trainers/$tests" "${@:5}" || status=1
}
run "${VERL_VLA_PATH:-}" verl-vla "${VERL_VLA_ENV:-.venv-verl-vla}" verl_vla "$@"
run "${SIMPLEVLA_PATH:-}" simplevla "${SIMPLEVLA_ENV:-.venv-simplevla}" simplevla "$@"
run "${VERL_EXPERIMENTAL_VLA_PATH:-}" verl-vla "${VERL_VLA_ENV:-.venv-verl-vla}" experimental_vla "$@"
exit "$status"

#!/usr/bin/env bash
# Tests LIBERO's tasks in mujoco-warp on warp's CPU device: exports three tasks where LIBERO is installed (.venv, or
# LIBERO_PYTHON), then tests in an environment with vlac-gym[warp]. The first run compiles kernels for some minutes.
# usage: scripts/test_warp.sh [pytest options …]      WARP_ENV=DIR chooses the environment's folder.
set -euo pipefail
cd "$(dirname "$0")/.."
dir="${WARP_ENV:-.venv-warp}"
libero="${LIBERO_PYTHON:-${VENV:-.venv}/bin/python}"
if [[ ! "$dir/.installed" -nt pyproject.toml ]]; then
  [[ -x "$dir/bin/python" ]] || "${PYTHON:-python3.11}" -m venv "$dir"
  "$dir/bin/python" -m pip --disable-pip-version-check install --quiet -e ".[warp]" pytest pytest-timeout
  touch "$dir/.installed"
fi
VLAC_GYM_TEST_SCENES="$(mktemp -d)"
export VLAC_GYM_TEST_SCENES MUJOCO_GL="${MUJOCO_GL:-egl}"
trap 'rm -rf "$VLAC_GYM_TEST_SCENES"' EXIT
for tasks in "libero_spatial --task-ids 0,3" "libero_object --task-ids 0"; do
  # shellcheck disable=SC2086
  "$libero" -m vlac_gym.cli export-scenes --task-suite $tasks --num-starts 2 --resume --out "$VLAC_GYM_TEST_SCENES"
done
PYTHONPATH=. "$libero" tests/support/record_expert.py "$VLAC_GYM_TEST_SCENES"
mapfile -t files < <(grep -rl --include='test_*.py' 'mark\.warp\b' tests | sort)  # others import what is not there
"$dir/bin/python" -m pytest -m warp "${files[@]}" "$@"

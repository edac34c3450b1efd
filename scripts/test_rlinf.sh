#!/usr/bin/env bash
# Drives RLinf's real workers with this package's envs: builds the environment if needed, then runs the trainer's tests.
# usage: scripts/test_rlinf.sh [pytest options …]      RLINF_ENV=DIR chooses the environment's folder,
# RLINF=DIR a checkout of RLinf v0.3, with which the example's configuration is composed and validated.
set -euo pipefail
cd "$(dirname "$0")/.."
dir="${RLINF_ENV:-.venv-rlinf}"
scripts/make_trainer_env.sh rlinf "$dir"
MUJOCO_GL="${MUJOCO_GL:-egl}"
export MUJOCO_GL PYOPENGL_PLATFORM="${PYOPENGL_PLATFORM:-$MUJOCO_GL}" RAY_USAGE_STATS_ENABLED=0
exec "$dir/bin/python" -m pytest -m trainer tests/trainers/rlinf "$@"

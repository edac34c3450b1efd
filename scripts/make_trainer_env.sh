#!/usr/bin/env bash
# Builds a Python environment with a trainer beside this package: the trainers' pins exclude each other's and the
# critic engines'. Does nothing when that is done.
#
#   scripts/make_trainer_env.sh verl DIR      verl 0.9.1, mainline, both trainers (about 3.5 GB)
#   scripts/make_trainer_env.sh rlinf DIR     RLinf 0.3 (about 5 GB)
#   scripts/make_trainer_env.sh verl-vla DIR  verl 0.7.1, for checkouts of verl-vla and experimental/vla (about 3 GB)
#   scripts/make_trainer_env.sh simplevla DIR what a checkout of SimpleVLA-RL imports (about 5 GB)
#
# Versions are those of scripts/trainer_constraints/TRAINER.txt. Without a GPU, torch is the CPU build.
set -euo pipefail
{  # read whole before it runs, since it may be edited meanwhile
cd "$(dirname "$0")/.."

trainer="${1:-}"
dir="${2:-}"
constraints="scripts/trainer_constraints/$trainer.txt"
if [[ $# -ne 2 || ! -f "$constraints" ]]; then
  known="$(printf '%s\n' scripts/trainer_constraints/*.txt | sed 's|.*/||; s|\.txt$||' | paste -sd'|')"
  echo "usage: scripts/make_trainer_env.sh $known DIR" >&2
  exit 2
fi
case "$trainer" in
  verl) packages=("vlac-gym[serve,verl]") check="import verl.trainer.main_ppo, transfer_queue" ;;
  rlinf)
    # RLinf leaves what its env and rollout workers import to its own installation script.
    packages=("vlac-gym[client,libero,serve]" "rlinf" "gym" "imageio[ffmpeg]" "transformers" "peft")
    # The byte code of the agent, too, for which a node waits 15 s.
    check="import rlinf.workers.env.env_worker, ray.dashboard.agent"
    ;;
  verl-vla)
    # What verl-vla imports beside its requirements; the checkouts themselves come by path.
    packages=("vlac-gym[client,libero,serve]" "verl==0.7.1" "fastapi" "uvicorn" "scipy" "imageio[ffmpeg]")
    check="import verl.protocol, verl.trainer.ppo.ray_trainer"
    ;;
  simplevla)
    # verl 0.7.1 for what it depends on: the checkout has a verl of its own. timm as its model demands. flash-attn has no
    # wheel for a CPU: the tests stand in for its names.
    packages=("vlac-gym[client,libero,serve]" "verl==0.7.1" "imageio[ffmpeg]" "timm" "tensorflow-cpu" "json-numpy")
    check="import timm, tensorflow, tensordict, ray"
    ;;
  *) echo "No recipe for $trainer." >&2; exit 2 ;;
esac

stamp="$dir/.installed"
if [[ -f "$stamp" && "$stamp" -nt pyproject.toml && "$stamp" -nt "$constraints" ]]; then
  exit 0
fi
start=$SECONDS
[[ -x "$dir/bin/python" ]] || "${PYTHON:-python3.11}" -m venv "$dir"
# --no-compile: byte code is made at the first import, of the few modules that are imported.
pip=("$dir/bin/python" -m pip --disable-pip-version-check install --quiet --no-compile --constraint "$constraints")

if ! "$dir/bin/python" -c 'import torch' 2> /dev/null; then
  torch="$(grep -E '^torch==' "$constraints")"
  if command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null 2>&1; then
    "${pip[@]}" "$torch"
  else
    # The CPU build is a twentieth of the size of the CUDA build.
    "${pip[@]}" "$torch+cpu" 2> /dev/null \
      || "${pip[@]}" --index-url https://download.pytorch.org/whl/cpu "$torch" 2> /dev/null \
      || "${pip[@]}" "$torch"
  fi
fi
# The name vlac-gym stands for this folder.
"${pip[@]}" --editable ".${packages[0]#vlac-gym}" "${packages[@]:1}" "pytest>=8" "pytest-timeout>=2.3"
if grep -qE '^torchvision==' "$constraints"; then
  # verl's vision-language processors and RLinf need torchvision; its wheel names a CUDA build of torch.
  "${pip[@]}" --no-deps "$(grep -E '^torchvision==' "$constraints")"
  "$dir/bin/python" scripts/mend_torchvision.py
fi
# Also where the environment forbids byte code: a trainer's workers would all compile all of it, each time.
env -u PYTHONDONTWRITEBYTECODE "$dir/bin/python" -c "$check"
touch "$stamp"
echo "$trainer is ready in $dir ($((SECONDS - start)) s)"
exit 0
}

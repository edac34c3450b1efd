#!/usr/bin/env bash
# Makes .venv and installs this package with the extras given, pinned by constraints.txt. Does nothing when that is done.
# usage: scripts/setup_venv.sh EXTRAS [--with-torch]      e.g. scripts/setup_venv.sh test --with-torch
set -euo pipefail
cd "$(dirname "$0")/.."

extras="$1"
with_torch="${2:-}"
venv="${VENV:-.venv}"
stamp="$venv/.installed-$extras"

is_fresh() { [[ -f "$1" && "$1" -nt pyproject.toml && "$1" -nt constraints.txt ]]; }
if is_fresh "$stamp" || is_fresh "$venv/.installed-dev"; then # dev holds all that the others do
  exit 0
fi

python="${PYTHON:-}"
if [[ -z "$python" ]]; then
  for candidate in python3.11 python3.12 python3; do
    if command -v "$candidate" > /dev/null; then python="$candidate"; break; fi
  done
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null || {
  echo "vlac-gym needs Python 3.11 or newer; got ${python:-none}. Set PYTHON=/path/to/python3.11." >&2
  exit 2
}

[[ -x "$venv/bin/python" ]] || "$python" -m venv "$venv" || {
  echo "Can't make a virtual environment. Run: sudo apt-get install -y python3-venv" >&2
  exit 2
}
pip=("$venv/bin/python" -m pip --disable-pip-version-check install --constraint constraints.txt)
names='s/^ *Collecting \([A-Za-z0-9._-]*\).*/  \1/p; s/^Installing collected packages.*/  unpacking …/p' # so that minutes are not silent

if [[ "$with_torch" == "--with-torch" ]] && ! "$venv/bin/python" -c 'import torch' 2> /dev/null; then
  torch="$(grep -E '^torch==' constraints.txt)"
  echo "Installing $torch …"
  if command -v nvidia-smi > /dev/null && nvidia-smi > /dev/null 2>&1; then
    "${pip[@]}" "$torch" | sed -un "$names"
  else
    # The CPU build is a twentieth of the size of the CUDA build.
    "${pip[@]}" "$torch+cpu" 2> /dev/null | sed -un "$names" \
      || "${pip[@]}" --index-url https://download.pytorch.org/whl/cpu "$torch" 2> /dev/null | sed -un "$names" \
      || "${pip[@]}" "$torch" | sed -un "$names"
  fi
fi

echo "Installing vlac-gym[$extras] into $venv (once; a few minutes) …"
"${pip[@]}" --editable ".[$extras]" | sed -un "$names"
if [[ "$extras" == test || "$extras" == dev ]]; then
  "${pip[@]}" --no-deps openpi-client | sed -un "$names" # asks for numpy 1, and works with 2
fi
touch "$stamp"

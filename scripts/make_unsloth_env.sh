#!/usr/bin/env bash
# An environment with Unsloth beside the project's own, which it sees through a .pth file: only Unsloth and what
# it alone needs are installed, without their dependencies. Unsloth patches transformers and TRL for a whole
# process, and 2026.10.9 (the first with a CPU backend) cannot be resolved together with the rest.
#   scripts/make_unsloth_env.sh [FOLDER]      (default .venv-unsloth)
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
target="${1:-$here/.venv-unsloth}"
PYTHON="${PYTHON:-$here/.venv/bin/python}"
source "$here/scripts/venv_beside.sh"

venv_beside "$target"
"$target/bin/python" -m pip install --quiet --no-deps \
  "unsloth==2026.10.9" "unsloth_zoo==2026.10.9" tyro msgspec hf_transfer cut_cross_entropy shtab typeguard sentencepiece
UNSLOTH_FORCE_CPU=1 "$target/bin/python" -c "import unsloth; print('unsloth', unsloth.__version__)"

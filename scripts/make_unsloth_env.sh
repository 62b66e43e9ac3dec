#!/usr/bin/env bash
# An environment with requirements-gpu.txt beside the project's own, which it sees through a .pth file. Unsloth patches
# transformers and TRL for a whole process, so the tests of everything else do without it.
#   scripts/make_unsloth_env.sh [FOLDER]      (default .venv-unsloth)
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
target="${1:-$here/.venv-unsloth}"
PYTHON="${PYTHON:-$here/.venv/bin/python}"
source "$here/scripts/venv_beside.sh"

venv_beside "$target"
"$target/bin/python" -m pip install --quiet --no-deps -r "$here/requirements-gpu.txt"
UNSLOTH_FORCE_CPU=1 "$target/bin/python" -c "import unsloth, bitsandbytes as b; print('unsloth', unsloth.__version__, 'bitsandbytes', b.__version__)"

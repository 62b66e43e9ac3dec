#!/usr/bin/env bash
# An environment with Unsloth beside the project's own, which it sees through a .pth file: only Unsloth and what
# it alone needs are installed, without their dependencies. Unsloth patches transformers and TRL for a whole
# process, and 2026.10.9 (the first with a CPU backend) cannot be resolved together with the rest.
#   scripts/make_unsloth_env.sh [FOLDER]      (default .venv-unsloth)
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
target="${1:-$here/.venv-unsloth}"
python="${PYTHON:-python}"
base="$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"

[ -x "$target/bin/python" ] || "$python" -m venv "$target"
"$target/bin/python" - "$base" <<'PY'
import pathlib, sys, sysconfig
pathlib.Path(sysconfig.get_paths()["purelib"], "project.pth").write_text(sys.argv[1] + "\n")
PY
"$target/bin/python" -m pip install --quiet --no-deps \
  "unsloth==2026.10.9" "unsloth_zoo==2026.10.9" tyro msgspec hf_transfer cut_cross_entropy shtab typeguard sentencepiece
UNSLOTH_FORCE_CPU=1 "$target/bin/python" -c "import unsloth; print('unsloth', unsloth.__version__)"

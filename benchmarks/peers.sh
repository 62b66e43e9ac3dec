#!/usr/bin/env bash
# Makes one environment a peer under .bench-venvs/, so that peers' pins never meet ours. A peer that cannot be
# installed within PEER_TIMEOUT seconds leaves `<peer>.skipped` with the reason, which the benchmark prints.
#
#     benchmarks/peers.sh [datasketch rensa gaoya datatrove data-juicer scrapy crawlee]
#
# By uv (from PyPI, into an environment of its own): pip took more than 10 minutes to resolve data-juicer. Wheels only,
# but for two pure-Python packages that data-juicer needs and that have none; aiohttp, ray, torch and regex are needed unsaid.
set -u
cd "$(dirname "$0")/.."
mkdir -p .bench-venvs
export UV_FIND_LINKS="${PIP_FIND_LINKS:-}"  # where the machine keeps wheels, torch without CUDA among them
uv=.bench-venvs/uv/bin/uv
[ -x "$uv" ] || { python3 -m venv .bench-venvs/uv && .bench-venvs/uv/bin/pip install -q uv; } || exit 1
declare -A packages=(
    [datasketch]="datasketch numpy"
    [rensa]="rensa"
    [gaoya]="gaoya"
    [datatrove]="datatrove orjson regex"
    [scrapy]="scrapy psutil"
    [crawlee]="crawlee[parsel] psutil"
    [data-juicer]="py-data-juicer>=1.6 aiohttp ray torch==2.13.0"
)
[ $# -gt 0 ] || set -- datasketch rensa gaoya datatrove data-juicer scrapy crawlee
for name in "$@"; do
    folder=".bench-venvs/$name"
    [ -e "$folder/ok" ] && continue
    rm -rf "$folder" "$folder.skipped"
    "$uv" venv -q "$folder"
    # shellcheck disable=SC2086
    if timeout "${PEER_TIMEOUT:-360}" "$uv" pip install -q --only-binary :all: --no-binary emoji --no-binary wget \
        --python "$folder/bin/python" ${packages[$name]} >"$folder.log" 2>&1; then
        touch "$folder/ok"
    else
        { echo "not installed within ${PEER_TIMEOUT:-360} s:"; tail -n 3 "$folder.log"; } >"$folder.skipped"
    fi
done

#!/usr/bin/env bash
# Makes one environment a peer under .bench-venvs/, so that peers' pins never meet ours. A peer that cannot be
# installed leaves a file `<peer>.skipped` with the reason, which the benchmark prints.
set -u
cd "$(dirname "$0")/.."
mkdir -p .bench-venvs
declare -A packages=(
    [datasketch]="datasketch numpy"
    [rensa]="rensa"
    [gaoya]="gaoya"
    [datatrove]="datatrove[processing] orjson"
    [data-juicer]="py-data-juicer"
)
for peer in "${@:-datasketch rensa gaoya datatrove data-juicer}"; do
    for name in $peer; do
        folder=".bench-venvs/$name"
        [ -x "$folder/ok" ] && continue
        rm -rf "$folder" "$folder.skipped"
        python3 -m venv "$folder"
        # shellcheck disable=SC2086
        if timeout "${PEER_TIMEOUT:-600}" "$folder/bin/pip" install -q ${packages[$name]} >"$folder.log" 2>&1; then
            touch "$folder/ok" && chmod +x "$folder/ok"
        else
            tail -n 3 "$folder.log" >"$folder.skipped"
        fi
    done
done

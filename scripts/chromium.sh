#!/usr/bin/env bash
# Finds a Chromium, or gets one: from PATH, else Playwright's own download, else the distribution's package.
set -euo pipefail
cd "$(dirname "$0")/.."
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    if path=$(command -v "$name"); then echo "  found $path"; exit 0; fi
done
if compgen -G "${PLAYWRIGHT_BROWSERS_PATH:-$HOME/.cache/ms-playwright}/chromium*" >/dev/null; then
    echo "  found Playwright's own"; exit 0
fi
if timeout 300 .venv/bin/python -m playwright install chromium --only-shell >/dev/null 2>&1; then
    echo "  downloaded by Playwright"; exit 0
fi
sudo=()
[ "$(id -u)" = 0 ] || sudo=(sudo -n)
if command -v apt-get >/dev/null && "${sudo[@]}" apt-get -qq update && \
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get -qq install -y chromium-headless-shell fonts-noto-cjk >/dev/null; then
    echo "  installed the distribution's chromium-headless-shell"; exit 0
fi
cat >&2 <<'MESSAGE'
No Chromium was found, and none could be fetched. Do one of these, then run make again:
  - install your distribution's package: chromium-headless-shell, or chromium;
  - where the network allows it: .venv/bin/python -m playwright install chromium --only-shell
  - point PERSONA_CHROMIUM at a Chromium or Chrome binary.
MESSAGE
exit 1

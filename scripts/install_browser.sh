#!/bin/sh
# Debian's Chromium and Prometheus for the tests that need them, where apt and root are there.
set -eu

missing=""
command -v chromium >/dev/null || missing="chromium fonts-dejavu-core"
command -v promtool >/dev/null || missing="$missing prometheus"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "not installed:$missing (that needs apt and root); the tests that need them are left out" >&2
    [ -z "${CI:-}" ] || exit 1
    exit 0
fi

echo "installing with apt: $missing; up to 147 MB to fetch, 746 MB on disk"
# Prometheus is wanted as a program, not as a service that starts by itself.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null

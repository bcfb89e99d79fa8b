#!/usr/bin/env bash
# Installs what the tests with real faults need, from Debian's packages.
set -euo pipefail
missing=()
for pair in strace:strace xfs_io:xfsprogs mkfs.xfs:xfsprogs iptables:iptables ip:iproute2 faketime:faketime; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if ((${#missing[@]})); then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

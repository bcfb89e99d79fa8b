#!/usr/bin/env bash
# Installs the systems that Annulus is compared with, from the distribution's packages, unless they are there.
set -euo pipefail

missing=()
command -v redis-server >/dev/null && command -v redis-cli >/dev/null || missing+=(redis-server redis-tools)
command -v etcd >/dev/null || missing+=(etcd-server)
[ ${#missing[@]} -eq 0 ] && exit 0

root=()
[ "$(id -u)" -eq 0 ] || root=(sudo)
"${root[@]}" apt-get update -q
# In this run level the packages' own services are not started.
"${root[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
	apt-get install -qy --no-install-recommends "${missing[@]}"

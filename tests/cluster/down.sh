#!/usr/bin/env bash
# Takes the local Kubernetes down and removes all that it made: processes,
# containers, mounts, network namespaces, cgroups, its run directory with all
# volumes. Built programs and images stay in the cache. Fine to call when
# nothing runs, or after a crash.
#
#   down.sh
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
for part in settings processes network nodes dismantle; do
  # shellcheck source=/dev/null
  source "$folder/parts/$part.sh"
done
(($# == 0)) || die "takes no arguments"
need_root
take_lock
dismantle
say "cluster $cluster is down"

#!/usr/bin/env bash
# Proves that the local Kubernetes does what the tests of Annulus need of one:
# restricted pods with volumes, names, Services, exec, logs, graceful ends,
# scaling, reclaimed and retained volumes, admission by CEL, loss of a node, no
# way out; and that nothing is left when it is down.
#
#   selftest.sh    takes about two minutes; uses a cluster of its own, selftest,
#                  beside one that runs
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
export ANNULUS_CLUSTER_NAME=selftest
unset ANNULUS_RUN_DIR
# shellcheck source=parts/settings.sh
source "$folder/parts/settings.sh"
# shellcheck source=parts/checks.sh
source "$folder/parts/checks.sh"
need_root
work=$(mktemp -d)
passed=0
failed=0

# check WHAT COMMAND...: counts, with the time it took; goes on after a failure.
check() {
  local what=$1 begun=$EPOCHREALTIME code
  shift
  # Not as a condition: there, bash would go on after what fails inside.
  set +e
  (
    set -e
    "$@"
  ) >"$work/output" 2>&1
  code=$?
  set -e
  local took=$(((${EPOCHREALTIME/[.,]/} - ${begun/[.,]/}) / 1000))
  if ((code == 0)); then
    passed=$((passed + 1))
    printf 'ok    %6d ms  %s\n' "$took" "$what"
  else
    failed=$((failed + 1))
    printf 'FAIL  %6d ms  %s\n' "$took" "$what"
    tail -n 30 "$work/output" | sed 's/^/  | /'
  fi
}

# A picture of what a cluster can leave on a host. What does not tell whose it is
# counts only while no other cluster makes and removes such things, too.
traces() {
  {
    set +e
    awk '{print "mount", $2}' /proc/self/mounts | grep " $run"
    find /sys/fs/cgroup -maxdepth 2 -name "$cgroup"
    find /var/lib/cni -name "$cgroup-*"
    pgrep --full --list-full "$run/"
    find "$run" "$netns" -maxdepth 0
    $alone && find /var/lib/kubelet /var/run/netns /var/lib/cni /var/log/containers /var/log/pods /run/containerd/s \
      -mindepth 1 -not -type d
    true
  } 2>/dev/null | sort
}

up() { "$folder/up.sh" --nodes "$1"; }
down() { "$folder/down.sh"; }
nothing_left() { diff "$work/before" <(traces); }

down >/dev/null 2>&1 || true
alone=true
! compgen -G '/var/run/netns/cni-*' >/dev/null || alone=false
traces >"$work/before"
trap 'down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

check 'one node up' up 1
check 'up again changes nothing' up 1
check 'two more nodes' up 3
check 'three restricted pods with volumes made' k apply --server-side -f "$folder/manifests/selftest.yaml"
check 'and ready' three_ready
check 'one in each zone' spread_over_zones
check 'they find each other by name' peers_resolve
check 'a Service reaches each, itself included' service_reaches_all
check 'exec; volumes belong to fsGroup' volume_is_theirs
check 'logs' logs_tell
check 'port-forward' port_forwards
check 'deleted pod ends gracefully, keeps its volume' graceful_end
check 'killed container restarts' crash_restarts
check 'disruption budget blocks an eviction' budget_blocks_eviction
check 'unrestricted pod is refused' unrestricted_is_refused
check 'CEL rule of a CRD refuses' cel_refuses
check 'no way out' no_way_out
check 'crashed node comes back' node_comes_back
check 'scale down' scale_down
check 'deleted claim takes its volume along' claim_is_reclaimed
check 'retained volume stays' claim_is_retained
check 'down' down
check 'nothing is left' nothing_left
check 'up once more' up 3
check 'down while it works' down
check 'nothing is left again' nothing_left

echo "$passed passed, $failed failed"
((failed == 0))

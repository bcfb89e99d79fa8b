#!/usr/bin/env bash
# Runs a command inside the local cluster's network, where its API server, pods,
# Services and their names are reached. It has KUBECONFIG for an administrator,
# this cluster's kubectl and helm first in PATH, and resolves names as a pod
# in namespace default does. It reaches nothing else.
#
#   in-cluster.sh COMMAND [ARGUMENT...]     e.g. in-cluster.sh kubectl get pods -A
#
# The command replaces this script, so signals and the exit code are its own.
set -euo pipefail
# shellcheck source=parts/settings.sh
source "$(cd "${BASH_SOURCE[0]%/*}" && pwd)/parts/settings.sh"
(($#)) || die "needs a command. Usage: in-cluster.sh COMMAND [ARGUMENT...]"
need_root
[[ -e $netns && -e $run/admin.conf ]] || die "cluster $cluster is not up; start it by $checkout/tests/cluster/up.sh"
export KUBECONFIG=$run/admin.conf PATH=$bin:$PATH
export ANNULUS_CLUSTER_NAME=$cluster ANNULUS_RUN_DIR=$run
# For a command that has to reach out, to node.sh say: a process outside.
export ANNULUS_OUTSIDE_PID=$PPID
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY
# Its own mount namespace, in which resolv.conf is another. "slave" lets the
# host's unmounts through, so that no pod's volume is held by it.
# shellcheck disable=SC2016 # the inner shell expands these
exec nsenter --net="$netns" -- unshare --mount --propagation slave -- \
  bash -c 'mount --bind "$0" /etc/resolv.conf && exec "$@"' "$run/resolv.conf" "$@"

# shellcheck shell=bash disable=SC2034
# Where the local cluster keeps its things, and its addresses. Sourced by all
# scripts of this folder; sets variables and the few functions every one needs.
#
# What a user may set:
#   ANNULUS_CLUSTER_NAME  default annulus; another name is another cluster beside it
#   ANNULUS_RUN_DIR       default /var/lib/annulus-cluster/NAME; must be on a real file
#                         system (containers are overlays of it) and is removed by down.sh
#   XDG_CACHE_HOME        default ~/.cache; programs and images are kept in its annulus/

kubernetes_version=1.34.4
helm_version=3.20.2
local_path_version=0.0.30

cluster=${ANNULUS_CLUSTER_NAME:-annulus}
run=${ANNULUS_RUN_DIR:-/var/lib/annulus-cluster/$cluster}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/annulus
bin=$cache/kubernetes-$kubernetes_version
images=$cache/images
checkout=$(cd "${BASH_SOURCE[0]%/*}/../../.." && pwd)

netns=/var/run/netns/$cluster
cgroup=annulus-cluster-$cluster
lock=/run/lock/annulus-cluster-$cluster

# Addresses exist inside the network namespace alone, so they cannot clash.
# Node K has node_network.K and hands out pod_network.K.0/24.
node_network=192.168.77
pod_network=10.244
service_network=10.96.0.0/16
api_service_ip=10.96.0.1
dns_service_ip=10.96.0.10
api_url=https://$node_network.1:6443
nodes_max=9

# Parts of the processors, see weigh. The pods of a node have what a kubelet gives
# them beside the other services of a host with two processors. The control plane
# has hosts of its own elsewhere, so here it goes behind them.
pods_shares=2048
control_plane_shares=256

[[ $cluster =~ ^[a-z]([a-z0-9-]{0,20}[a-z0-9])?$ ]] || {
  echo "ANNULUS_CLUSTER_NAME=$cluster: use up to 22 lower-case letters, digits and dashes" >&2
  exit 2
}

SECONDS_AT_START=$EPOCHREALTIME

# A line of progress, with the seconds since the script began.
say() {
  local now=$EPOCHREALTIME
  local tenths=$(((${now/[.,]/} - ${SECONDS_AT_START/[.,]/}) / 100000))
  printf '%5d.%ds  %s\n' $((tenths / 10)) $((tenths % 10)) "$*" >&2
}

die() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

need_root() {
  ((EUID == 0)) || die "needs root: it makes a network namespace, mounts and cgroups (try sudo)"
}

# One up or down of a cluster at a time; the lock goes with the process.
take_lock() {
  mkdir -p "${lock%/*}"
  exec 9>"$lock"
  flock -n 9 || {
    say "waiting for another up.sh or down.sh of cluster $cluster"
    flock 9
  }
}

in_netns() { nsenter --net="$netns" -- "$@"; }

kubectl() { in_netns "$bin/kubectl" --kubeconfig="$run/admin.conf" "$@"; }

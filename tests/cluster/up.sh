#!/usr/bin/env bash
# Brings up a real Kubernetes on this machine: control plane and nodes as plain
# processes in a network namespace without a way out. Needs root and Debian's
# packages (see tools.sh), no container engine and no image registry.
#
#   up.sh [--nodes K]    K nodes in zones a, b, c ..., 1 unless said otherwise
#
# May be called at any time: what runs is kept, missing nodes are added, a
# crashed node is started again, and a broken cluster is replaced by a new one.
# Settings: parts/settings.sh. Use it by in-cluster.sh, end it by down.sh.
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
for part in settings processes network certificates control-plane nodes services dismantle; do
  # shellcheck source=/dev/null
  source "$folder/parts/$part.sh"
done

main() {
  local nodes=1
  while (($#)); do
    case $1 in
      --nodes)
        (($# > 1)) || die "--nodes needs a number"
        nodes=$2 && shift 2
        ;;
      --nodes=*) nodes=${1#*=} && shift ;;
      *) die "does not know $1. Usage: up.sh [--nodes K]" ;;
    esac
  done
  [[ $nodes =~ ^[1-$nodes_max]$ ]] || die "--nodes takes a number from 1 to $nodes_max"
  need_root
  "$folder/tools.sh"
  "$checkout/images/build.sh" pause shell
  take_lock
  if ! control_plane_alive; then
    fresh_control_plane
  fi
  bring_up "$nodes"
  say "cluster $cluster is ready: $(made_nodes | wc -l) nodes; use it by $folder/in-cluster.sh COMMAND"
}

fresh_control_plane() {
  [[ ! -e $run && ! -e $netns ]] || {
    say "removing what is left of an earlier cluster $cluster"
    dismantle
  }
  mkdir -p "$run"/{pki,pids,log,etcd,volume-plugins}
  make_network
  make_certificates
  say "starting etcd, API server, controller manager, scheduler"
  # The first node's containerd needs no API server, so it starts beside it.
  start_containerd 1
  start_control_plane
}

bring_up() {
  local number
  for ((number = 1; number <= $1; number++)); do start_containerd "$number"; done
  for ((number = 1; number <= $1; number++)); do start_kubelet "$number"; done
  start_services
  say "waiting for nodes, names and volumes"
  for ((number = 1; number <= $1; number++)); do
    await "kubelet-node-$number" 90 ready node_ready "$number"
  done
  await coredns 30 ready dns_ready
  await kube-controller-manager 30 "making service accounts" accounts_ready
  await local-path-provisioner 5 running alive local-path-provisioner
}

main "$@"

#!/usr/bin/env bash
# Loses a node of the local cluster, and gets it back.
#
#   node.sh crash NODE    power loss: kubelet, containerd and all containers of the
#                         node end at once; its volumes stay
#   node.sh start NODE    the node comes back, with its volumes and its pods
#
# NODE is node-1, node-2 ... The control plane and DNS are not on any node, so even
# node-1 may go. The API server notices within a minute, as it does anywhere.
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
for part in settings processes network certificates control-plane nodes; do
  # shellcheck source=/dev/null
  source "$folder/parts/$part.sh"
done
[[ $# == 2 && $2 =~ ^node-([1-9])$ ]] || die "usage: node.sh crash|start node-K"
number=${BASH_REMATCH[1]}
need_root
take_lock
[[ -d $run/node-$number ]] || die "cluster $cluster has no node-$number"
case $1 in
  crash)
    crash_node "$number"
    say "node-$number is gone"
    ;;
  start)
    start_containerd "$number"
    start_kubelet "$number"
    await "kubelet-node-$number" 90 ready node_ready "$number"
    say "node-$number is back"
    ;;
  *) die "usage: node.sh crash|start node-K" ;;
esac

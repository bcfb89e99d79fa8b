# shellcheck shell=bash
# The network namespace: every address of the cluster exists in here, and
# nothing in here has a way out.

# The one interface besides lo is a bridge without ports, since not every
# kernel has dummy devices. The default route ends at the node itself:
# kubelet and kube-proxy want to see one, and packets for elsewhere die there.
make_network() {
  ip netns add "$cluster"
  in_netns ip link set lo up
  in_netns ip link add eth0 type bridge
  in_netns ip addr add "$node_network.1/24" dev eth0
  in_netns ip link set eth0 up
  in_netns ip route add default via "$node_network.1" dev eth0
  in_netns sysctl -qw net.ipv4.ip_forward=1
  # Names for those who enter by in-cluster.sh; pods get theirs from the kubelet.
  cat >"$run/resolv.conf" <<EOF
nameserver $node_network.1
search default.svc.cluster.local svc.cluster.local cluster.local
options ndots:5
EOF
}

add_node_address() { in_netns ip addr replace "$node_network.$1/24" dev eth0; }

# CNI keeps what it did in /var/lib/cni until a pod is taken down in order. A
# record is NETWORK-POD-DEVICE, and the network is named after the cluster, so
# what an abrupt end leaves is found.
remove_pod_networks() {
  local record pod pod_netns
  for record in /var/lib/cni/results/"$cgroup"-*; do
    [[ -e $record ]] || continue
    pod=${record%-*}
    pod=${pod##*-}
    pod_netns=$(grep -o '/netns/cni-[0-9a-f-]*' "$record" | head -n 1) || true
    [[ ! -e /var/run$pod_netns || -z $pod_netns ]] || ip netns delete "${pod_netns#/netns/}"
    rm -f "$record" /var/lib/cni/results/cni-loopback-"$pod"-lo
  done
}

remove_network() {
  [[ -e $netns ]] || return 0
  local pids
  pids=$(ip netns pids "$cluster" 2>/dev/null | tr '\n' ' ')
  [[ -z $pids ]] || say "still running inside, started by in-cluster.sh and left alone: $pids"
  ip netns delete "$cluster"
}

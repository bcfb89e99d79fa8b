# shellcheck shell=bash
# A node: its own containerd and kubelet, its own address, pod subnet, volumes
# and logs, and its own cgroup root (two kubelets under one would each remove
# the other's pods, as two log folders in one would each collect the other's
# logs). Nodes share only the kernel and the network namespace.

zone_of() {
  local zones=abcdefghi
  echo "${zones:$1-1:1}"
}

cni_programs() {
  local folder
  for folder in /usr/lib/cni /opt/cni/bin; do
    [[ -x $folder/ptp ]] && echo "$folder" && return
  done
}

# restrict_oom_score_adj: a container may not ask for less than what this shell
# was given, and where that is nothing runc fails with an unhelpful message.
write_containerd_config() {
  cat >"$1/containerd.toml" <<EOF
version = 2
root = "$1/containerd/root"
state = "$1/containerd/state"
[grpc]
  address = "$1/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$1/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$(cni_programs)"
    conf_dir = "$1/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
EOF
}

# Each pod is joined to its node by a pair of devices of its own (ptp), not by a
# bridge: all its packets are then routed, so Services work between pods of
# one node without br_netfilter, a pod keeps its address wherever it
# speaks, and a test can part any two pods by one iptables rule in FORWARD.
write_pod_network() {
  cat >"$1/cni/10-pods.conflist" <<EOF
{
  "cniVersion": "1.0.0",
  "name": "$cgroup-node-$2",
  "plugins": [{
    "type": "ptp",
    "ipMasq": false,
    "ipam": {
      "type": "host-local",
      "dataDir": "$1/cni-addresses",
      "ranges": [[{"subnet": "$pod_network.$2.0/24"}]],
      "routes": [{"dst": "0.0.0.0/0"}]
    }
  }]
}
EOF
}

# Images are never pulled, so none may be collected; a full disk of the host is
# no reason to evict; and a test that crashes a container again and again
# should not wait five minutes for the next time.
write_kubelet_config() {
  cat >"$1/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$1/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup/node-$2
failCgroupV1: false
failSwapOn: false
port: $((10250 + 100 * $2))
healthzPort: $((10248 + 100 * $2))
podLogsDir: $1/pod-logs
volumePluginDir: $run/volume-plugins
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $run/pki/ca.crt}
authorization: {mode: Webhook}
clusterDNS: [$dns_service_ip]
clusterDomain: cluster.local
resolvConf: ""
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
featureGates: {KubeletCrashLoopBackOffMax: true}
crashLoopBackOff: {maxContainerRestartPeriod: 20s}
EOF
}

make_node() {
  local dir=$run/node-$1
  mkdir -p "$dir"/{containerd,cni,kubelet,pki,pod-logs,volumes}
  write_containerd_config "$dir"
  write_pod_network "$dir" "$1"
  write_kubelet_config "$dir" "$1"
  make_node_certificate "$1"
}

containerd_answers() { ctr --address "$run/node-$1/containerd.sock" --connect-timeout 1s version; }

load_image() {
  local loaded
  loaded=$(ctr --address "$run/node-$1/containerd.sock" --namespace k8s.io images import "$2" 2>&1) ||
    die "node-$1 does not take $2: $loaded"
}

# start_containerd K, then start_kubelet K: also bring a crashed node back.
start_containerd() {
  [[ -e $run/node-$1/kubelet.conf ]] || make_node "$1"
  add_node_address "$1"
  make_cgroup "$cgroup/node-$1"
  weigh "$cgroup/node-$1" "$pods_shares"
  spawn "containerd-node-$1" "daemons-node-$1" containerd --config "$run/node-$1/containerd.toml"
}

start_kubelet() {
  local image
  await "containerd-node-$1" 30 answering containerd_answers "$1"
  for image in pause shell; do
    load_image "$1" "$images/$image.tar"
  done
  spawn "kubelet-node-$1" "daemons-node-$1" "$bin/kubelet" \
    --config="$run/node-$1/kubelet.yaml" --kubeconfig="$run/node-$1/kubelet.conf" \
    --root-dir="$run/node-$1/kubelet" --cert-dir="$run/node-$1/pki" \
    --hostname-override="node-$1" --node-ip="$node_network.$1" \
    --node-labels="topology.kubernetes.io/region=local,topology.kubernetes.io/zone=$(zone_of "$1")"
}

# Ready, and by the word of the kubelet that runs now: of one that was lost, the
# API server keeps the last word for a while.
node_ready() {
  local status heard
  read -r status heard < <(kubectl get node "node-$1" -o \
    'jsonpath={range .status.conditions[?(@.type=="Ready")]}{.status} {.lastHeartbeatTime}{end}') || true
  [[ $status == True && $(date -d "$heard" +%s) -ge $(stat -c %Y "$run/pids/kubelet-node-$1") ]]
}

# The shims of containers listen outside of containerd's own folder. Beside each
# container is the address of its shim, until containerd starts again and finds
# the container gone.
remove_shim_sockets() {
  local note socket
  for note in "$run/node-$1"/containerd/state/io.containerd.runtime.v2.task/k8s.io/*/address; do
    [[ -e $note ]] || continue
    socket=$(<"$note")
    rm -f "${socket#unix://}"
  done
}

# Power loss: everything of the node ends at once, its volumes stay.
crash_node() {
  kill_cgroup "daemons-node-$1"
  kill_cgroup "node-$1"
  remove_shim_sockets "$1"
}

# The numbers of the nodes that were made, one a line.
made_nodes() {
  local dir
  for dir in "$run"/node-*/; do
    [[ $dir =~ /node-([0-9])/$ ]] && echo "${BASH_REMATCH[1]}"
  done
  return 0
}

# shellcheck shell=bash
# Takes a cluster down, in whatever state it is, and leaves nothing of it.

# First those who start others, so that nothing is started meanwhile; then all
# the rest at once, for nothing in this cluster is to be kept.
end_processes() {
  local number kubelets=()
  for number in $(made_nodes); do kubelets+=("kubelet-node-$number"); done
  stop TERM local-path-provisioner coredns kube-proxy "${kubelets[@]}"
  stop KILL kube-scheduler kube-controller-manager kube-apiserver etcd
  kill_cgroup
  for number in $(made_nodes); do remove_shim_sockets "$number"; done
}

unmount_all() {
  local point
  # Deepest first. Mount points escape spaces as \040; the run directory has none.
  awk -v prefix="$run/" 'index($2, prefix) == 1 {print $2}' /proc/self/mounts | sort -r |
    while read -r point; do umount --lazy "$point"; done
}

# The kubelet links logs of all pods here, whatever its own folder for them.
remove_log_links() {
  local link
  for link in /var/log/containers/*; do
    [[ -L $link && $(readlink "$link") == "$run"/* ]] && rm -f "$link"
  done
  return 0
}

# Where a kubelet listens for device plugins cannot be set. Unless one of the
# host's own listens there, what is there is a remainder of ours.
remove_device_socket() {
  local folder=/var/lib/kubelet/device-plugins
  [[ -d $folder ]] && ! grep -q "$folder/kubelet.sock" /proc/net/unix || return 0
  rm -f "$folder/kubelet.sock"
  rmdir --ignore-fail-on-non-empty "$folder" "${folder%/*}"
}

dismantle() {
  [[ $run == /*/* && $run != *[[:space:]]* ]] || die "refuses to remove ANNULUS_RUN_DIR=$run"
  end_processes
  remove_pod_networks
  remove_network
  unmount_all
  # Removing folders must never reach through a mount into something else.
  ! awk '{print $2}' /proc/self/mounts | grep -q "^$run/" || die "mounts remain below $run"
  remove_log_links
  remove_device_socket
  remove_cgroup
  rm -rf "$run"
}

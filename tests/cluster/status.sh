#!/usr/bin/env bash
# Shows what of the local Kubernetes runs: processes, nodes, pods, images. Exits
# with 0 when all that should run does, 1 otherwise.
#
#   status.sh
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
for part in settings processes nodes control-plane; do
  # shellcheck source=/dev/null
  source "$folder/parts/$part.sh"
done
need_root

show_processes() {
  local record name pid state all=0
  printf '%-28s %8s %8s  %s\n' PROCESS PID MEMORY LOG
  for record in "$run"/pids/*; do
    name=${record##*/}
    read -r pid _ <"$record"
    if alive "$name"; then
      state=$(awk '/^VmRSS/ {printf "%d MiB", $2 / 1024}' "/proc/$pid/status")
    else
      state=ended all=1
    fi
    printf '%-28s %8s %8s  %s\n' "$name" "$pid" "$state" "$run/log/$name.log"
  done
  return $all
}

show_images() {
  local number
  for number in $(made_nodes); do
    printf '\nimages of node-%s:\n' "$number"
    ctr --address "$run/node-$number/containerd.sock" --namespace k8s.io images list -q | grep -v '^sha256:' | sed 's/^/  /'
  done
}

[[ -d $run/pids ]] || {
  echo "cluster $cluster is not up"
  exit 1
}
code=0
show_processes || code=1
if api_ready >/dev/null 2>&1; then
  echo
  kubectl get nodes --label-columns=topology.kubernetes.io/zone
  echo
  kubectl get pods --all-namespaces -o wide
  show_images || code=1
else
  echo "the API server does not answer"
  code=1
fi
exit $code

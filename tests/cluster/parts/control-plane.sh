# shellcheck shell=bash
# etcd, the API server, the controller manager and the scheduler.

control_plane=(etcd kube-apiserver kube-controller-manager kube-scheduler)

api_ready() { kubectl get --raw=/readyz; }

control_plane_alive() {
  local component
  for component in "${control_plane[@]}"; do
    alive "$component" || return 1
  done
  [[ -e $netns ]] && api_ready >/dev/null 2>&1
}

# A cluster of tests starts empty each time, so etcd need not wait for the disk.
start_etcd() {
  spawn etcd control-plane etcd --data-dir "$run/etcd" --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380
  weigh "$cgroup/control-plane" "$control_plane_shares"
}

etcd_answers() { in_netns bash -c 'exec 3<>/dev/tcp/127.0.0.1/2379'; }

# --kubelet-preferred-address-types: node names are in no DNS, so logs and exec
# must go by address.
start_api_server() {
  spawn kube-apiserver control-plane "$bin/kube-apiserver" \
    --etcd-servers=http://127.0.0.1:2379 \
    --advertise-address="$node_network.1" --secure-port=6443 \
    --tls-cert-file="$run/pki/kube-apiserver.crt" --tls-private-key-file="$run/pki/kube-apiserver.key" \
    --client-ca-file="$run/pki/ca.crt" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$run/pki/service-accounts.key" \
    --service-account-signing-key-file="$run/pki/service-accounts.key" \
    --service-cluster-ip-range="$service_network" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --kubelet-preferred-address-types=InternalIP \
    --kubelet-client-certificate="$run/pki/apiserver-to-kubelet.crt" \
    --kubelet-client-key="$run/pki/apiserver-to-kubelet.key"
}

start_controllers() {
  spawn kube-controller-manager control-plane "$bin/kube-controller-manager" \
    --kubeconfig="$run/kube-controller-manager.conf" --leader-elect=false \
    --use-service-account-credentials --root-ca-file="$run/pki/ca.crt" \
    --service-account-private-key-file="$run/pki/service-accounts.key" \
    --flex-volume-plugin-dir="$run/volume-plugins"
  spawn kube-scheduler control-plane "$bin/kube-scheduler" \
    --kubeconfig="$run/kube-scheduler.conf" --leader-elect=false
}

start_control_plane() {
  start_etcd
  await etcd 30 answering etcd_answers
  start_api_server
  await kube-apiserver 60 ready api_ready
  start_controllers
}

# shellcheck shell=bash
# What nodes need beside them: Service addresses (kube-proxy), names (CoreDNS)
# and volumes (local-path-provisioner). All three run as plain processes.

here=$checkout/tests/cluster

# One kube-proxy serves all nodes, since they share one network namespace.
start_proxy() {
  spawn kube-proxy daemons "$bin/kube-proxy" --kubeconfig="$run/kube-proxy.conf" \
    --proxy-mode=iptables --cluster-cidr="$pod_network.0.0/16" --hostname-override=node-1 \
    --conntrack-max-per-core=0
}

# CoreDNS answers from its watch of the API, without a cache: a pod's new
# address is known at once.
start_dns() {
  cat >"$run/Corefile" <<EOF
.:53 {
  errors
  health 127.0.0.1:8080
  ready 127.0.0.1:8181
  kubernetes cluster.local in-addr.arpa ip6.arpa {
    kubeconfig $run/admin.conf
    ttl 5
  }
  template ANY ANY . {
    rcode NXDOMAIN
  }
}
EOF
  spawn coredns daemons "$bin/coredns" -conf "$run/Corefile"
}

# CoreDNS has read all Services and pods once it says OK here.
dns_ready() {
  # shellcheck disable=SC2016 # the inner shell reads the file descriptor
  in_netns timeout 1 bash -c 'exec 3<>/dev/tcp/127.0.0.1/8181; printf "GET /ready HTTP/1.0\r\n\r\n" >&3; grep -q "200 OK" <&3'
}

# Volumes of node K are folders in node-K/volumes, so losing a disk is removing
# a folder.
start_storage() {
  local number paths=
  for ((number = 1; number <= nodes_max; number++)); do
    paths+="${paths:+,}{\"node\":\"node-$number\",\"paths\":[\"$run/node-$number/volumes\"]}"
  done
  echo "{\"nodePathMap\":[$paths]}" >"$run/local-path.json"
  kubectl create configmap local-path-config --namespace=local-path-storage --dry-run=client -o yaml \
    --from-file="$here/storage/setup" --from-file="$here/storage/teardown" | kubectl apply -f - >/dev/null
  spawn local-path-provisioner daemons "$bin/local-path-provisioner" start \
    --config "$run/local-path.json" --kubeconfig "$run/admin.conf" --namespace local-path-storage \
    --configmap-name local-path-config --service-account-name volume-maker \
    --helper-pod-file "$here/storage/pod.yaml" --helper-image localhost/shell:1
}

# A pod cannot be made before its namespace's ServiceAccount is there.
accounts_ready() {
  kubectl get serviceaccount default --namespace=default &&
    kubectl get serviceaccount volume-maker --namespace=local-path-storage
}

start_services() {
  kubectl apply --server-side -f "$here/manifests/dns.yaml" -f "$here/manifests/storage.yaml" >/dev/null
  start_proxy
  start_dns
  start_storage
}

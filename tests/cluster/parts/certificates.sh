# shellcheck shell=bash
# The cluster's authority, one certificate for each component, and the
# kubeconfig files that hold them. Components have the identities that a real
# cluster gives them, so what is forbidden there is forbidden here.

# issue NAME SUBJECT [SUBJECT_ALTERNATIVE_NAMES]: pki/NAME.crt and .key
issue() {
  local path=$run/pki/$1
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" \
    -keyout "$path.key" -out "$path.csr" 2>/dev/null
  openssl x509 -req -in "$path.csr" -CA "$run/pki/ca.crt" -CAkey "$run/pki/ca.key" -CAcreateserial \
    -days 365 -out "$path.crt" -extfile <(echo "extendedKeyUsage=clientAuth,serverAuth${3:+
subjectAltName=$3}") 2>/dev/null
  rm "$path.csr"
}

# kubeconfig NAME FILE: for the holder of pki/NAME, complete in itself.
kubeconfig() {
  cat >"$2" <<EOF
apiVersion: v1
kind: Config
clusters:
- name: $cluster
  cluster:
    server: $api_url
    certificate-authority-data: $(base64 -w0 "$run/pki/ca.crt")
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$run/pki/$1.crt")
    client-key-data: $(base64 -w0 "$run/pki/$1.key")
contexts:
- name: $cluster
  context: {cluster: $cluster, user: $1}
current-context: $cluster
EOF
  chmod 600 "$2"
}

make_certificates() {
  local component
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj "/CN=$cluster" \
    -keyout "$run/pki/ca.key" -out "$run/pki/ca.crt" 2>/dev/null
  openssl ecparam -name prime256v1 -genkey -noout -out "$run/pki/service-accounts.key"
  issue kube-apiserver /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:$api_service_ip,IP:127.0.0.1,IP:$node_network.1"
  issue apiserver-to-kubelet /O=system:masters/CN=apiserver-to-kubelet
  issue admin /O=system:masters/CN=admin
  kubeconfig admin "$run/admin.conf"
  for component in kube-controller-manager kube-scheduler kube-proxy; do
    issue $component /CN=system:$component
    kubeconfig $component "$run/$component.conf"
  done
}

# Node K's kubelet may change its own Node and the pods bound to it, no others.
make_node_certificate() {
  issue "node-$1" "/O=system:nodes/CN=system:node:node-$1"
  kubeconfig "node-$1" "$run/node-$1/kubelet.conf"
}

# shellcheck shell=bash disable=SC2016,SC2317
# What selftest.sh asks of a cluster, each as a function that fails if it is not so.

k() { "$folder/in-cluster.sh" kubectl --namespace=selftest "$@"; }
sh_in() { k exec "$1" -- sh -ec "$2"; }

# fails COMMAND...: it must not succeed.
fails() {
  ! "$@" || {
    echo "should have failed: $*"
    return 1
  }
}

# eventually COMMAND...: it may fail for half a minute.
eventually() {
  local deadline=$((SECONDS + 30))
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.3
  done
}

three_ready() { k rollout status statefulset/peers --timeout=120s; }

# page_of HOST PORT, as peers-0 gets it. By nc, since the wget of Debian's static
# BusyBox crashes whatever it is asked.
page_of() { sh_in peers-0 "printf 'GET / HTTP/1.0\r\n\r\n' | nc -w 5 $1 $2 | tail -n 1"; }

peers_resolve() {
  local index
  for index in 0 1 2; do
    [[ $(page_of "peers-$index.peers" 8000) == "peers-$index" ]]
    "$folder/in-cluster.sh" getent hosts "peers-$index.peers.selftest.svc.cluster.local"
  done
  fails "$folder/in-cluster.sh" getent hosts nowhere.example
}

# Also when the Service picks a pod on the asker's own node, or the asker.
service_reaches_all() {
  local round answered=
  for round in {1..24}; do
    answered+="$(page_of peers-any 80) "
    [[ $answered != *peers-0* || $answered != *peers-1* || $answered != *peers-2* ]] || break
  done
  echo "after $round requests: $answered"
  [[ $answered == *peers-0* && $answered == *peers-1* && $answered == *peers-2* ]]
}

spread_over_zones() { [[ $(k get pods -o 'jsonpath={.items[*].spec.nodeName}' | tr ' ' '\n' | sort -u | wc -l) == 3 ]]; }

logs_tell() { k logs peers-1 | grep -q '^serving as peers-1$'; }

volume_is_theirs() { sh_in peers-0 'id -u | grep -qx 65532 && touch /data/mine && stat -c %g /data | grep -qx 65532'; }

# A pod that was deleted ends as it wishes, and finds its volume again.
graceful_end() {
  sh_in peers-2 'test "$(cat /data/life)" = begun'
  k delete pod peers-2 --wait
  three_ready
  sh_in peers-2 'tail -n 2 /data/life | tr "\n" " " | grep -q "ended begun"'
}

crash_restarts() {
  local before
  before=$(k get pod peers-1 -o 'jsonpath={.status.containerStatuses[0].restartCount}')
  "$folder/in-cluster.sh" bash -c "kill -KILL \$(cat \$(find /sys/fs/cgroup/*/$cgroup /sys/fs/cgroup/$cgroup -path \"*\$1*\" -name cgroup.procs 2>/dev/null) | sort -u)" \
    _ "$(k get pod peers-1 -o 'jsonpath={.metadata.uid}')"
  k wait pod/peers-1 --for="jsonpath={.status.containerStatuses[0].restartCount}=$((before + 1))" --timeout=60s
  three_ready
}

unrestricted_is_refused() { fails k run refused --image=localhost/shell:1 --restart=Never -- true; }

budget_blocks_eviction() {
  local budget
  k scale statefulset/peers --replicas=3
  k wait pdb/peers --for='jsonpath={.status.disruptionsAllowed}=1' --timeout=60s
  k delete pod peers-0 --wait=false
  budget=$(k create -f - --raw /api/v1/namespaces/selftest/pods/peers-1/eviction <<<'{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"peers-1"}}' 2>&1 || true)
  grep -qi 'disruption budget' <<<"$budget"
  k wait pod/peers-0 --for=delete --timeout=30s || true
  three_ready
}

cel_refuses() {
  k apply -f - <<'EOF'
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: probes.selftest.annulus.dev}
spec:
  group: selftest.annulus.dev
  scope: Namespaced
  names: {kind: Probe, plural: probes, singular: probe}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties: {replicas: {type: integer}, copies: {type: integer}}
            required: [replicas, copies]
            x-kubernetes-validations: [{rule: "self.replicas >= self.copies", message: "more replicas, please"}]
EOF
  k wait crd/probes.selftest.annulus.dev --for=condition=Established --timeout=30s
  local probe='{apiVersion: selftest.annulus.dev/v1, kind: Probe, metadata: {name: p}, spec: {replicas: 1, copies: 3}}'
  eventually cel_message "$probe"
}

cel_message() { fails k apply -f - <<<"$1" 2>&1 | tee /dev/stderr | grep 'more replicas, please'; }

scale_down() {
  k scale statefulset/peers --replicas=1
  k wait pod/peers-1 pod/peers-2 --for=delete --timeout=60s
}

# Its folder on the node goes with the claim.
claim_is_reclaimed() {
  local volume
  volume=$(k get pvc data-peers-2 -o 'jsonpath={.spec.volumeName}')
  compgen -G "$run/node-*/volumes/${volume}_*" >/dev/null
  k delete pvc data-peers-2 --timeout=60s
  k wait pv "$volume" --for=delete --timeout=60s
  ! compgen -G "$run/node-*/volumes/${volume}_*" >/dev/null
}

claim_is_retained() {
  local volume
  volume=$(k get pvc data-peers-1 -o 'jsonpath={.spec.volumeName}')
  k patch pv "$volume" -p '{"spec": {"persistentVolumeReclaimPolicy": "Retain"}}'
  k delete pvc data-peers-1 --timeout=60s
  k wait pv "$volume" --for='jsonpath={.status.phase}=Released' --timeout=60s
  compgen -G "$run/node-*/volumes/${volume}_*" >/dev/null
}

port_forwards() {
  # shellcheck disable=SC2016 # the inner shell expands these
  "$folder/in-cluster.sh" bash -c '
    kubectl --namespace=selftest port-forward pod/peers-0 18000:8000 >/dev/null & forward=$!
    trap "kill $forward" EXIT
    for _ in $(seq 50); do
      exec 3<>/dev/tcp/127.0.0.1/18000 && break
      sleep 0.1
    done 2>/dev/null
    printf "GET / HTTP/1.0\r\n\r\n" >&3 && grep -q peers-0 <&3'
}

# The host's own addresses and those of the outside: none may be reached, from
# the cluster's network or from a pod. Nothing links the network to the host's.
no_way_out() {
  local address
  for address in $(hostname -I) 192.0.2.1; do
    [[ $address != *:* ]] || continue
    fails "$folder/in-cluster.sh" timeout 2 bash -c "exec 3<>/dev/tcp/$address/22"
    fails sh_in peers-0 "nc -w 2 $address 22 </dev/null"
  done
  "$folder/in-cluster.sh" ip -o link | tee /dev/stderr | fails grep -v ' lo: \| eth0: \|link-netns cni-'
}

node_comes_back() {
  local node
  node=$(k get pod peers-0 -o 'jsonpath={.spec.nodeName}')
  "$folder/node.sh" crash "$node"
  fails sh_in peers-0 true
  "$folder/node.sh" start "$node"
  eventually sh_in peers-0 'test "$(grep -c begun /data/life)" -gt 1'
  eventually three_ready
}

#!/usr/bin/env bash
# Proves that the local Kubernetes does what the tests of Annulus need of one:
# restricted pods with volumes, names, Services, exec, logs, graceful ends,
# scaling, reclaimed and retained volumes, admission by CEL, loss of a node, no
# way out; and that nothing is left when it is down.
#
#   selftest.sh    takes about two minutes; uses a cluster of its own, selftest,
#                  beside one that runs
# shellcheck disable=SC2016,SC2317 # shells inside pods expand; check runs functions
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
export ANNULUS_CLUSTER_NAME=selftest
unset ANNULUS_RUN_DIR
# shellcheck source=parts/settings.sh
source "$folder/parts/settings.sh"
need_root
work=$(mktemp -d)

alone=true
passed=0
failed=0

# check WHAT COMMAND...: counts, with the time it took; goes on after a failure.
check() { "$folder/in-cluster.sh" kubectl --namespace=selftest "$@"; }
sh_in() { k exec "$1" -- sh -ec "$2"; }

# A picture of what a cluster can leave on a host. What does not tell whose it is
# counts only while no other cluster makes and removes such things, too.
traces() {
  {
    set +e
    awk '{print "mount", $2}' /proc/self/mounts | grep " $run"
    find /sys/fs/cgroup -maxdepth 2 -name "$cgroup"
    find /var/lib/cni -name "$cgroup-*"
    pgrep --full --list-full "$run/"
    find "$run" "$netns" -maxdepth 0
    $alone && find /var/run/netns /var/lib/cni /var/log/containers /var/log/pods /run/containerd/s -mindepth 1 -not -type d
    true
  } 2>/dev/null | sort
}

three_ready() { k rollout status statefulset/peers --timeout=120s; }

# Asked from peers-0. BusyBox's wget, linked statically by Debian, crashes over
# names (its nslookup does not), so it is given an address.
page_of() {
  sh_in peers-0 "wget -qO- -T 5 http://\$(nslookup $1.selftest.svc.cluster.local | awk '/^Address/ && !/:53/ {print \$2}'):$2"
}

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

cel_message() { k apply -f - <<<"$1" 2>&1 | tee /dev/stderr | grep -q 'more replicas, please'; }

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

up() { "$folder/up.sh" --nodes "$1"; }
down() { "$folder/down.sh"; }
nothing_left() { diff "$work/before" <(traces); }

down >/dev/null 2>&1 || true
! compgen -G '/var/run/netns/cni-*' >/dev/null || alone=false
traces >"$work/before"
trap 'down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

check 'one node up' up 1
check 'up again changes nothing' up 1
check 'two more nodes' up 3
check 'three restricted pods with volumes made' k apply --server-side -f "$folder/manifests/selftest.yaml"
check 'and ready' three_ready
check 'one in each zone' spread_over_zones
check 'they find each other by name' peers_resolve
check 'a Service reaches each, itself included' service_reaches_all
check 'exec; volumes belong to fsGroup' volume_is_theirs
check 'logs' logs_tell
check 'port-forward' port_forwards
check 'deleted pod ends gracefully, keeps its volume' graceful_end
check 'killed container restarts' crash_restarts
check 'disruption budget blocks an eviction' budget_blocks_eviction
check 'unrestricted pod is refused' unrestricted_is_refused
check 'CEL rule of a CRD refuses' cel_refuses
check 'no way out' no_way_out
check 'crashed node comes back' node_comes_back
check 'scale down' scale_down
check 'deleted claim takes its volume along' claim_is_reclaimed
check 'retained volume stays' claim_is_retained
check 'down' down
check 'nothing is left' nothing_left
check 'up once more' up 3
check 'down while it works' down
check 'nothing is left again' nothing_left

echo "$passed passed, $failed failed"
((failed == 0))

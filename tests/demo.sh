#!/usr/bin/env bash
# The demo: a real Kubernetes, the operator by Helm, a cluster of three nodes by kubectl, scaled to five and back under
# load. KEEP=1 leaves it all up and says how to talk to it.
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
checkout=$(cd "$folder/.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/annulus/target}
cd "$checkout"

cargo build --locked --workspace --bins
settings=$("$folder/install.sh")
eval "$settings"

# A demo that was run before leaves nothing behind for this one.
$IN kubectl delete kvc/demo --ignore-not-found --wait=true --timeout=120s
$IN kubectl delete pvc -l app.kubernetes.io/instance=demo --ignore-not-found --wait=true --timeout=120s

arguments=()
if [[ $ANNULUS_TARGET != local ]]; then
  # From outside a cluster its Services are not reached; a port-forward is kept up while the demo runs.
  (while sleep 1; do kubectl port-forward service/demo 16379:6379 >/dev/null 2>&1 || true; done) &
  forward=$!
  trap 'kill "$forward" 2>/dev/null || true' EXIT
  arguments=(--address 127.0.0.1:16379)
fi
result=0
$IN "$CARGO_TARGET_DIR/debug/annulus-demo" "${arguments[@]}" || result=$?

if [[ -n ${KEEP-} ]]; then
  cat <<EOF

The cluster stays up. To talk to it:
  eval "\$(tests/cluster/target.sh)"
  \$IN kubectl get kvc,pods
  \$IN redis-cli -h demo set greeting hello
  \$IN curl http://demo-0.demo-nodes:9090/ui
  \$IN kubectl scale kvc/demo --replicas=4
Remove everything: make down
EOF
elif [[ $ANNULUS_TARGET == local ]]; then
  "$folder/cluster/down.sh"
else
  $IN kubectl delete kvc/demo --wait=true --timeout=120s
  $IN helm uninstall annulus --namespace annulus-system
fi
exit "$result"

# A cluster on a real Kubernetes for run.sh, which sources this. Clients run where pods can be reached.
settings=$(NODES=3 "$here/../install.sh")
eval "$settings"
[ "$ANNULUS_TARGET" = local ] || echo "clients have to reach the pods of this cluster by themselves" >&2
cleanup() {
  rm -rf "$scripts"
  if [ -n "${KEEP-}" ]; then return; fi
  if [ "$ANNULUS_TARGET" = local ]; then "$here/../cluster/down.sh"; else $IN kubectl delete kvc/compat --wait; fi
}
trap cleanup EXIT
$IN kubectl apply -f - <<'MANIFEST'
apiVersion: annulus.dev/v1alpha1
kind: KeyValueCluster
metadata: {name: compat}
spec: {replicas: 3, partitions: 256, storage: {size: 1Gi}}
MANIFEST
$IN kubectl wait kvc/compat --for=condition=Available --timeout=180s
# The nodes are available before every host's proxy has heard that they are.
for _ in $(seq 100); do
  $IN timeout 2 bash -c '</dev/tcp/compat/6379' 2>/dev/null && break
  sleep 0.2
done
# The Service, which sends connections to whatever nodes are ready.
export ANNULUS_HOST=compat ANNULUS_PORT=6379
export ANNULUS_NODES="compat-0.compat-nodes:6379 compat-1.compat-nodes:6379 compat-2.compat-nodes:6379"

# A pod goes without a warning; its StatefulSet makes it anew. The clients, who call this, are inside already.
offer kill <<KILL
which=\$(cat "$scripts/which" 2>/dev/null || echo 1)
echo \$((3 - which)) >"$scripts/which"
kubectl delete pod "compat-\$which" --grace-period=0 --force >/dev/null 2>&1
KILL
# Running is when everything is as the spec says and nothing moves.
offer scale <<'SCALE'
kubectl scale kvc/compat --replicas="$1" >/dev/null
for _ in $(seq 600); do
  state=$(kubectl get kvc/compat -o jsonpath='{.metadata.generation} {.status.observedGeneration} {.status.phase}')
  read -r wanted seen phase <<<"$state"
  if [ "$wanted" = "$seen" ] && [ "$phase" = Running ]; then exit 0; fi
  sleep 0.3
done
echo "not settled: $state" >&2
exit 1
SCALE

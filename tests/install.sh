#!/usr/bin/env bash
# Brings up a Kubernetes (see cluster/target.sh), builds the images, and installs the operator with Helm.
# Prints what to evaluate to talk to that cluster, as target.sh does; everything else goes to standard error.
# NODES=K: on K hosts in K zones, where the cluster is ours to bring up.
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
checkout=$(cd "$folder/.." && pwd)
namespace=${OPERATOR_NAMESPACE:-annulus-system}

"$folder/cluster/tools.sh" >&2
"$checkout/images/build.sh" >&2
target=$("$folder/cluster/target.sh" --up --nodes "${NODES:-1}")
eval "$target"
"$checkout/images/load.sh" >&2

$IN helm upgrade --install annulus "$checkout/charts/annulus" --namespace "$namespace" --create-namespace \
  --set image.repository=localhost/annulus-operator --set image.tag=dev --set image.pullPolicy=IfNotPresent \
  --set nodeImage.repository=localhost/annulus-node --set nodeImage.tag=dev \
  --wait --timeout 180s >&2
# The tag does not change with the program: an operator that ran before must be the one just built.
$IN kubectl -n "$namespace" rollout restart deployment -l app.kubernetes.io/name=annulus-operator >&2
$IN kubectl -n "$namespace" rollout status deployment -l app.kubernetes.io/name=annulus-operator --timeout=180s >&2
printf '%s\n' "$target"

#!/usr/bin/env bash
# End-to-end tests on a real Kubernetes. ONLY=NAME runs those whose names contain NAME; KEEP=1 leaves the cluster up.
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
checkout=$(cd "$folder/.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/annulus/target}
cd "$checkout"

# Built out here, since in the cluster's network there is no way to a registry.
# With the whole workspace, so that the features of shared crates are those that `make unit` built them with.
cargo test --locked --no-run --workspace --test e2e
# Three hosts in three zones.
settings=$(NODES=3 "$folder/install.sh")
eval "$settings"
$IN helm test annulus --namespace annulus-system
result=0
# One after the other: two cores carry one cluster under load.
$IN cargo test --locked --offline --workspace --test e2e -- --ignored --nocapture --test-threads=1 ${ONLY:+"$ONLY"} ||
  result=$?
if [[ -z ${KEEP-} && $ANNULUS_TARGET == local ]]; then
  "$folder/cluster/down.sh"
fi
exit "$result"

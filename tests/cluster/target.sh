#!/usr/bin/env bash
# Decides on which Kubernetes the demo and the end-to-end tests run, and prints
# it as variables for a shell to evaluate:
#
#   eval "$(tests/cluster/target.sh)"
#   $IN kubectl get nodes
#
#   target.sh                   only decides
#   target.sh --up [--nodes K]  also brings that cluster up, if it is ours to bring up
#
# The first of these that applies:
#   CONTEXT or KUBECONFIG is set   that cluster, as it is         ANNULUS_TARGET=context
#   docker answers, kind exists    a kind cluster named annulus   ANNULUS_TARGET=kind
#   otherwise                      the cluster of up.sh           ANNULUS_TARGET=local
# ANNULUS_TARGET=kind or =local in the environment decides it, too.
#
# It prints ANNULUS_TARGET, KUBECONFIG, KIND_CLUSTER (kind only) and IN: what to
# put before a command that talks to the cluster, empty where nothing is needed.
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
# shellcheck source=parts/settings.sh
source "$folder/parts/settings.sh"
kind_cluster=${KIND_CLUSTER:-annulus}

main() {
  local up=false nodes=1 target
  while (($#)); do
    case $1 in
      --up) up=true && shift ;;
      --nodes)
        (($# > 1)) || die "--nodes needs a number"
        nodes=$2 && shift 2
        ;;
      *) die "does not know $1. Usage: target.sh [--up [--nodes K]]" ;;
    esac
  done
  target=$(decide)
  case $target in
    context | kind | local) "target_$target" "$up" "$nodes" ;;
    *) die "ANNULUS_TARGET=$target is none of context, kind, local" ;;
  esac
}

decide() {
  if [[ -n ${ANNULUS_TARGET-} ]]; then
    echo "$ANNULUS_TARGET"
  elif [[ -n ${CONTEXT-} || -n ${KUBECONFIG-} ]]; then
    echo context
  elif command -v kind >/dev/null && timeout 10 docker info >/dev/null 2>&1; then
    echo kind
  else
    echo local
  fi
}

# A kubeconfig with that context alone, so that no program can pick another.
target_context() {
  local file=${KUBECONFIG-}
  if [[ -n ${CONTEXT-} ]]; then
    file=$cache/context.conf
    mkdir -p "$cache"
    (umask 077 && kubectl_of_host config view --raw --flatten --minify --context="$CONTEXT" >"$file") ||
      die "there is no context $CONTEXT"
  fi
  [[ $1 == false ]] || KUBECONFIG=$file kubectl_of_host version >/dev/null || die "the cluster of ${CONTEXT:-$file} does not answer"
  print ANNULUS_TARGET=context "KUBECONFIG=$file" IN=
}

target_kind() {
  local file=$cache/kind-$kind_cluster.conf
  mkdir -p "$cache"
  if [[ $1 == true ]] && ! kind get clusters 2>/dev/null | grep -qx "$kind_cluster"; then
    kind_nodes "$2" | kind create cluster --name "$kind_cluster" --config=- --wait 120s >&2
  fi
  [[ $1 == false ]] || (umask 077 && kind get kubeconfig --name "$kind_cluster" >"$file")
  print ANNULUS_TARGET=kind "KUBECONFIG=$file" "KIND_CLUSTER=$kind_cluster" IN=
}

# One node, or a control plane and K workers, in zones a, b, c ... as up.sh does.
kind_nodes() {
  local number zones=abcdefghi
  printf 'kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes:\n- role: control-plane\n'
  (($1 > 1)) || return 0
  for ((number = 0; number < $1; number++)); do
    printf -- '- role: worker\n  labels: {topology.kubernetes.io/zone: %s}\n' "${zones:number:1}"
  done
}

target_local() {
  [[ $1 == false ]] || "$folder/up.sh" --nodes "$2" >&2
  print ANNULUS_TARGET=local "KUBECONFIG=$run/admin.conf" "IN=$folder/in-cluster.sh"
}

kubectl_of_host() { PATH=$PATH:$bin command kubectl "$@"; }

print() {
  local assignment
  for assignment; do
    printf 'export %s=%q\n' "${assignment%%=*}" "${assignment#*=}"
  done
}

main "$@"

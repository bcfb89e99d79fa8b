#!/usr/bin/env bash
# Gives the images that build.sh made to the cluster of the hour, so that pods
# with imagePullPolicy IfNotPresent or Never find them.
#
#   load.sh [NAME...]    node and operator unless named
#
#   ANNULUS_TARGET   local (default): every node of the local cluster
#                    kind: the kind cluster $KIND_CLUSTER, default annulus
#                    context: nothing can be loaded; says what to do instead
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
for part in settings processes nodes; do
  # shellcheck source=/dev/null
  source "$folder/../tests/cluster/parts/$part.sh"
done

load_local() {
  local number name loads=()
  [[ -d $run/pids ]] || die "cluster $cluster is not up; start it by $checkout/tests/cluster/up.sh"
  for number in $(made_nodes); do
    (for name; do load_image "$number" "$images/$name.tar"; done) &
    loads+=($!)
  done
  for number in "${loads[@]}"; do wait "$number"; done
  say "loaded $* into ${#loads[@]} nodes of cluster $cluster"
}

load_kind() {
  local name
  for name; do
    kind load image-archive "$images/$name.tar" --name "${KIND_CLUSTER:-annulus}"
  done
}

explain_foreign() {
  cat >&2 <<EOF
This cluster pulls its images from a registry. Copy them to one that it can read:

  for name in $*; do
    skopeo copy "docker-archive:$images/\$name.tar" "docker://REGISTRY/annulus-\$name:dev"
  done

and install the chart with the images' new names.
EOF
}

(($#)) || set -- node operator
for name; do
  [[ -f $images/$name.tar ]] || die "there is no $images/$name.tar; make it by $folder/build.sh $name"
done
case ${ANNULUS_TARGET:-local} in
  local) need_root && load_local "$@" ;;
  kind) load_kind "$@" ;;
  context) explain_foreign "$@" ;;
  *) die "ANNULUS_TARGET=$ANNULUS_TARGET is none of local, kind, context" ;;
esac

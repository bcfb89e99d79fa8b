#!/usr/bin/env bash
# Installs what the local cluster is made of, as far as it is missing: Debian's
# packages, and Kubernetes, CoreDNS, Helm and local-path-provisioner, built
# from their Go modules into ~/.cache/annulus (XDG_CACHE_HOME is honoured).
#
#   tools.sh           everything: some ten minutes the first time, then nothing
#   tools.sh images    only the packages that images/build.sh needs
#
# Safe to run at the same time as itself: the second waits for the first.
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
# shellcheck source=parts/settings.sh
source "$folder/parts/settings.sh"

# What must be there, and the package of Debian that brings it.
for_images=(
  buildah=buildah gcc=gcc strip=binutils
  libc-headers=libc6-dev static-busybox=busybox-static
)
for_cluster=(
  etcd=etcd-server containerd=containerd ctr=containerd runc=runc cni-plugins=containernetworking-plugins
  iptables=iptables ip=iproute2 sysctl=procps openssl=openssl
)

main() {
  local wanted=("${for_images[@]}") missing
  [[ ${1-} == images ]] || wanted+=("${for_cluster[@]}")
  mkdir -p "$bin"
  exec 8>"$cache/.tools.lock"
  flock -n 8 || {
    say "waiting for another tools.sh"
    flock 8
  }
  missing=$(missing_packages "${wanted[@]}")
  # shellcheck disable=SC2086 # one word for each package
  [[ -z $missing ]] || install_packages $missing
  [[ ${1-} == images ]] || build_programs
}

is_there() {
  case $1 in
    cni-plugins) [[ -x /usr/lib/cni/ptp || -x /opt/cni/bin/ptp ]] ;;
    libc-headers) [[ -e /usr/include/stdio.h ]] ;;
    static-busybox) [[ -x /bin/busybox ]] && ! ldd /bin/busybox >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing_packages() {
  local entry
  for entry; do
    is_there "${entry%=*}" || echo "${entry#*=}"
  done | sort -u
}

# Some of these packages start a daemon where there is systemd. The cluster
# starts its own, so theirs must neither run now nor after the next boot.
install_packages() {
  local forbids=/usr/sbin/policy-rc.d unit
  command -v apt-get >/dev/null || die "install the equivalents of these Debian packages, then run it again: $*"
  need_root
  say "installing $*"
  if [[ -d /run/systemd/system && ! -e $forbids ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$forbids"
    chmod +x "$forbids"
    # shellcheck disable=SC2064 # the path as it is now
    trap "rm -f $forbids" EXIT
  fi
  {
    apt-get update --quiet
    DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends \
      -o DPkg::Lock::Timeout=600 "$@"
  } >"$cache/packages.log" 2>&1 || {
    tail -n 20 "$cache/packages.log" >&2
    die "Debian's packages could not be installed; all of it is in $cache/packages.log"
  }
  if [[ -d /run/systemd/system ]]; then
    for unit in etcd containerd; do
      [[ " $* " != *" $unit"* ]] || systemctl disable --quiet "$unit" 2>/dev/null || true
    done
  fi
}

build_programs() {
  local version=k8s.io/component-base/version
  program kube "$folder/programs/kubernetes" \
    -X $version.gitVersion=v$kubernetes_version -X $version.gitMajor=1 \
    -X $version.gitMinor="$(cut -d. -f2 <<<"$kubernetes_version")" -X $version.gitTreeState=clean
  program coredns "$folder/programs/coredns"
  program local-path-provisioner "github.com/rancher/local-path-provisioner@v$local_path_version"
  program helm "helm.sh/helm/v3/cmd/helm@v$helm_version"
  local name
  for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    [[ -L $bin/$name ]] || ln -sf kube "$bin/$name"
  done
}

# program NAME SOURCE [LINKER FLAG...]: builds SOURCE, a folder or MODULE@VERSION,
# unless that was done. It appears under its name only when it is whole.
program() {
  local name=$1 source=$2 recipe begun=$SECONDS
  shift 2
  recipe=$(recipe_of "$source" "$@")
  [[ -x $bin/$name && $(cat "$bin/.$name.recipe" 2>/dev/null) == "$recipe" ]] && return
  need_go
  say "building $name"
  local work=$bin/.building
  rm -rf "$work"
  mkdir -p "$work"
  local flags=(-buildvcs=false -trimpath -ldflags "-s -w $*")
  if [[ -d $source ]]; then
    (cd "$source" && CGO_ENABLED=0 go build "${flags[@]}" -o "$work/$name" .) >"$bin/$name.log" 2>&1
  else
    (cd / && CGO_ENABLED=0 GOBIN=$work go install "${flags[@]}" "$source") >"$bin/$name.log" 2>&1
  fi || {
    tail -n 20 "$bin/$name.log" >&2
    die "$name could not be built; all of it is in $bin/$name.log"
  }
  mv "$work/$name" "$bin/$name"
  rmdir "$work"
  echo "$recipe" >"$bin/.$name.recipe"
  say "built $name in $((SECONDS - begun)) s"
}

# One hash of all that decides what a program becomes.
recipe_of() {
  {
    [[ ! -d $1 ]] || cat "$1"/*
    [[ -d $1 ]] || echo "$1"
    shift
    echo "$@"
  } | sha256sum | cut -d' ' -f1
}

# Asked in the module's folder, go also tells whether it is new enough for it.
need_go() {
  command -v go >/dev/null || die "needs Go 1.25 or newer, once, to build Kubernetes (https://go.dev/dl)"
  (cd "$folder/programs/kubernetes" && go list -m) >/dev/null 2>&1 ||
    die "$(go version) is too old to build Kubernetes $kubernetes_version: Go 1.25 or newer is needed (https://go.dev/dl)"
}

main "$@"

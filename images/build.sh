#!/usr/bin/env bash
# Builds container images without a container engine, into archives that any
# containerd, Docker or kind can load.
#
#   build.sh [node] [operator] [pause] [shell]    all four unless named
#
#   node, operator   Annulus: localhost/annulus-node:dev, localhost/annulus-operator:dev
#   pause, shell     for the local cluster: localhost/pause:1, localhost/shell:1 (BusyBox)
#
# Archives are ~/.cache/annulus/images/NAME.tar (XDG_CACHE_HOME is honoured). One
# whose contents did not change is left as it is. Programs are linked
# statically, so the images hold nothing else.
#
#   ANNULUS_PROFILE    the Cargo profile, default release
#   CARGO_TARGET_DIR   default ~/.cache/annulus/target
set -euo pipefail
folder=$(cd "${BASH_SOURCE[0]%/*}" && pwd)
# shellcheck source=../tests/cluster/parts/settings.sh
source "$folder/../tests/cluster/parts/settings.sh"

main() {
  local name
  (($#)) || set -- node operator pause shell
  for name; do
    [[ -f $folder/$name/Containerfile ]] || die "knows no image $name"
  done
  "$checkout/tests/cluster/tools.sh" images
  mkdir -p "$images"
  # Not local: the trap that removes it runs after main is left.
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  compile "$@"
  for name; do
    mkdir -p "$work/$name"
    cp "$folder/$name/Containerfile" "$work/$name/"
    "contents_of_$name" "$work/$name"
    archive "$name"
  done
}

tag_of() {
  case $1 in
    node | operator) echo "localhost/annulus-$1:dev" ;;
    *) echo "localhost/$1:1" ;;
  esac
}

contents_of_node() { program annulus-node "$1"; }
contents_of_operator() { program annulus-operator "$1"; }
contents_of_pause() { gcc -Os -static -Wall -Werror -o "$1/pause" "$folder/pause/pause.c"; }

contents_of_shell() {
  local applet
  mkdir -p "$1/rootfs/bin"
  install -d -m 1777 "$1/rootfs/tmp"
  cp /bin/busybox "$1/rootfs/bin/"
  for applet in $(/bin/busybox --list); do
    [[ $applet == busybox ]] || ln -s busybox "$1/rootfs/bin/$applet"
  done
}

# compile NAME...: those of them that are Annulus. An explicit --target keeps the
# flags away from build scripts and macros, which cannot be static.
compile() {
  local name packages=()
  for name; do
    [[ $name != node && $name != operator ]] || packages+=(--package "annulus-$name")
  done
  ((${#packages[@]})) || return 0
  triple=$(rustc -vV | sed -n 's/^host: //p')
  profile=${ANNULUS_PROFILE:-release}
  target_dir=${CARGO_TARGET_DIR:-$cache/target}
  say "compiling ${packages[*]} ($profile)"
  (cd "$checkout" && CARGO_TARGET_DIR=$target_dir RUSTFLAGS='-C target-feature=+crt-static' \
    cargo build --target "$triple" --profile "$profile" "${packages[@]}" --bins)
}

# program NAME FOLDER: without debug information, but with the names that make a
# backtrace readable.
program() {
  local output=$profile
  [[ $profile != dev ]] || output=debug
  strip --strip-debug -o "$2/$1" "$target_dir/$triple/$output/$1"
}

# All that goes into an image, as one hash.
key_of() {
  {
    tag_of "$1"
    cd "$work/$1"
    find . -printf '%p %m %l\n' | LC_ALL=C sort
    find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
  } | sha256sum | cut -d' ' -f1
}

current() { [[ -f $images/$1.tar && $(cat "$images/$1.key" 2>/dev/null) == "$2" ]]; }

# Only who writes takes the lock, so an unchanged image never waits for another.
archive() {
  local tag key
  tag=$(tag_of "$1")
  key=$(key_of "$1")
  current "$1" "$key" && return
  exec 8>"$images/.lock"
  flock 8
  rm -f "$images/$1.key"
  bare_buildah build --isolation chroot --layers=false --timestamp 0 --quiet --tag "$tag" "$work/$1" >/dev/null
  bare_buildah push --quiet "$tag" "docker-archive:$work/$1.tar:$tag"
  mv "$work/$1.tar" "$images/$1.tar.new"
  mv "$images/$1.tar.new" "$images/$1.tar"
  echo "$key" >"$images/$1.key"
  exec 8>&-
  say "built $tag: $images/$1.tar, $(du -h --apparent-size "$images/$1.tar" | cut -f1)"
}

# buildah with a store and a policy of its own: it touches nothing of the host's.
bare_buildah() {
  local verb=$1
  shift
  echo '{"default": [{"type": "insecureAcceptAnything"}]}' >"$work/policy.json"
  buildah --root "$work/store" --runroot "$work/run" --storage-driver vfs \
    "$verb" --signature-policy "$work/policy.json" "$@"
}

main "$@"

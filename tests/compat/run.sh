#!/usr/bin/env bash
# Client libraries of several languages against a real ring of three nodes, which grows to five and shrinks back while
# they write, and nodes of which are killed. Libraries are installed outside the checkout; a language whose registry or
# tools are missing is skipped and says so.
#
#   ONLY=go            one language
#   WHERE=kubernetes   against a cluster that the operator runs, instead of processes on loopback; KEEP=1 leaves it up
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/annulus/compat
target=${CARGO_TARGET_DIR:-$here/../../target}
only=${ONLY:-}
where=${WHERE:-loopback}
scripts=$(mktemp -d)
export ANNULUS_MODULES="$cache/javascript"
mkdir -p "$cache"
IN=

# Puts a program for the clients to call into a variable of the environment; the rest of the script is standard input.
offer() { (echo '#!/usr/bin/env bash'; echo 'set -euo pipefail'; cat) >"$scripts/$1" && chmod +x "$scripts/$1"; }

# What clients live through, made of `kill`, which ends a node other than the last it has ended, and `scale`.
export ANNULUS_KILL="$scripts/kill"
export ANNULUS_RESIZE="$scripts/scale 5 && $scripts/scale 3"
export ANNULUS_TROUBLE="($scripts/scale 5 & sleep 1; $scripts/kill; wait \$!) && sleep 2 && ($scripts/scale 3 & sleep 1; $scripts/kill; wait \$!)"

case $where in
loopback) source "$here/loopback.sh" ;;
kubernetes) source "$here/kubernetes.sh" ;;
*) echo "WHERE=$where is neither loopback nor kubernetes" >&2 && exit 1 ;;
esac

passed=0 failed=0 skipped=0
# name, command that installs, command that tests
check() {
  local name=$1 install=$2 run=$3
  if [ -n "$only" ] && [ "$only" != "$name" ]; then return; fi
  if ! (eval "$install") >"$cache/$name.log" 2>&1; then
    echo "$name: skipped, its libraries cannot be installed ($(grep -v '^ *$' "$cache/$name.log" | tail -1))"
    skipped=$((skipped + 1))
  elif (eval "$IN timeout 900 $run"); then
    passed=$((passed + 1))
  else
    echo "$name: FAILED"
    failed=$((failed + 1))
  fi
}

check redis-cli 'command -v redis-cli' "$here/redis-cli.sh"
check python "[ -x '$cache/python/bin/python' ] || python3 -m venv '$cache/python'; '$cache/python/bin/pip' install -q 'redis==8.1.0'" \
  "'$cache/python/bin/python' -W ignore '$here/python.py'"
check javascript "mkdir -p '$cache/javascript' && cd '$cache/javascript' && npm install --no-audit --no-fund --prefix . ioredis@5 redis@5" \
  "node '$here/javascript.mjs'"
check go "rm -rf '$cache/go-src' && cp -r '$here/go' '$cache/go-src' && cd '$cache/go-src' && go mod tidy && go build -o '$cache/go' ." \
  "'$cache/go'"
check java "rm -rf '$cache/java-src' && cp -r '$here/java' '$cache/java-src' && cd '$cache/java-src' && mvn -q -B package dependency:copy-dependencies" \
  "java -cp '$cache/java-src/target/classes:$cache/java-src/target/dependency/*' Compat"
check rust "CARGO_TARGET_DIR='$target' cargo build --locked -q --manifest-path '$here/rust/Cargo.toml'" \
  "'$target/debug/annulus-compat'"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]

#!/usr/bin/env bash
# Client libraries of several languages against a real ring of three nodes on loopback, a node of which is killed again
# and again. Libraries are installed outside the checkout; a language whose registry or tools are missing is skipped and
# says so. ONLY=go runs one language.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/annulus/compat
node=${CARGO_TARGET_DIR:-$here/../../target}/debug/annulus-node
only=${ONLY:-}
port=${ANNULUS_PORT:-17600}
mkdir -p "$cache"
[ -x "$node" ] || { echo "build annulus-node first: cargo build -p annulus-node" >&2; exit 1; }

ring=$(mktemp -d)
"$node" dev --nodes 3 --partitions 256 --dir "$ring" --resp-port "$port" >"$ring/log" 2>&1 &
supervisor=$!
trap 'kill "$supervisor" 2>/dev/null || true; wait "$supervisor" 2>/dev/null || true; rm -rf "$ring"' EXIT
for _ in $(seq 300); do
  grep -q '^ready' "$ring/log" && break
  kill -0 "$supervisor" 2>/dev/null || { cat "$ring/log" >&2; exit 1; }
  sleep 0.1
done

# Kills node 1, then node 2, then node 1 …; the supervisor starts it again.
cat >"$ring/kill" <<KILL
#!/usr/bin/env bash
set -euo pipefail
which=\$(cat "$ring/which" 2>/dev/null || echo 1)
echo \$((3 - which)) >"$ring/which"
"$node" dev status --json --dir "$ring" | python3 -c 'import json, os, signal, sys
os.kill(json.load(sys.stdin)["nodes"][int(sys.argv[1])]["pid"], signal.SIGKILL)' "\$which"
KILL
chmod +x "$ring/kill"
export ANNULUS_PORT=$port ANNULUS_KILL="$ring/kill" ANNULUS_MODULES="$cache/javascript"

passed=0 failed=0 skipped=0
# name, command that installs, command that tests
check() {
  local name=$1 install=$2 run=$3
  if [ -n "$only" ] && [ "$only" != "$name" ]; then return; fi
  if ! (eval "$install") >"$cache/$name.log" 2>&1; then
    echo "$name: skipped, its libraries cannot be installed ($(grep -v '^ *$' "$cache/$name.log" | tail -1))"
    skipped=$((skipped + 1))
  elif (eval "timeout 300 $run"); then
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
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]

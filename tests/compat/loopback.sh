# A ring of processes on this machine for run.sh, which sources this.
node=$target/debug/annulus-node
[ -x "$node" ] || { echo "build annulus-node first: cargo build -p annulus-node" >&2; exit 1; }
export ANNULUS_HOST=127.0.0.1 ANNULUS_PORT=${ANNULUS_PORT:-17600}
ring=$scripts/ring
"$node" dev --nodes 3 --partitions 256 --dir "$ring" --resp-port "$ANNULUS_PORT" >"$scripts/log" 2>&1 &
supervisor=$!
trap 'kill "$supervisor" 2>/dev/null || true; wait "$supervisor" 2>/dev/null || true; rm -rf "$scripts"' EXIT
for _ in $(seq 300); do
  grep -q '^ready' "$scripts/log" && break
  kill -0 "$supervisor" 2>/dev/null || { cat "$scripts/log" >&2; exit 1; }
  sleep 0.1
done
export ANNULUS_NODES="127.0.0.1:$ANNULUS_PORT 127.0.0.1:$((ANNULUS_PORT + 1)) 127.0.0.1:$((ANNULUS_PORT + 2))"

# Node 1, then node 2, then node 1 …; the supervisor starts it again.
offer kill <<KILL
which=\$(cat "$scripts/which" 2>/dev/null || echo 1)
echo \$((3 - which)) >"$scripts/which"
"$node" dev status --json --dir "$ring" | python3 -c 'import json, os, signal, sys
os.kill(json.load(sys.stdin)["nodes"][int(sys.argv[1])]["pid"], signal.SIGKILL)' "\$which"
KILL
offer scale <<SCALE
timeout 120 "$node" dev scale "\$1" --dir "$ring" >/dev/null
SCALE

#!/usr/bin/env bash
# Draws where the processor time of three nodes goes under one load of `annulus-bench compare`, as a flame graph, and
# prints the functions that take most of it themselves. Needs perf and the right to use it.
#
#   bench/profile.sh PROGRAMS OUTPUT.svg [LOAD]    LOAD as `compare --only` takes it; put if absent
set -euo pipefail

programs=$1 output=$2 load=${3:-put}
seconds=10
place=$(mktemp -d)
bench=
trap '[ -z "$bench" ] || kill "$bench" 2>/dev/null || true; rm -rf "$place"' EXIT

command -v perf >/dev/null || { echo "perf is missing: apt-get install linux-perf" >&2; exit 1; }
tools=${XDG_CACHE_HOME:-$HOME/.cache}/annulus/inferno
[ -x "$tools/bin/inferno-flamegraph" ] || cargo install -q --locked --root "$tools" inferno

"$programs/annulus-bench" compare --systems annulus --only "$load" --rounds 1 --seconds $((seconds + 8)) \
	--pids "$place/pids" >"$place/table" 2>&1 &
bench=$!
until [ -s "$place/pids" ]; do
	kill -0 "$bench" 2>/dev/null || { cat "$place/table" >&2; exit 1; }
	sleep 0.2
done
# Until it has got into its stride.
sleep 5
perf record -q -F 499 --call-graph dwarf,16384 -p "$(cat "$place/pids")" -o "$place/data" -- sleep "$seconds"
# Its nodes end with it.
wait "$bench"
bench=
perf script -i "$place/data" 2>/dev/null | "$tools/bin/inferno-collapse-perf" >"$place/stacks"
"$tools/bin/inferno-flamegraph" --title "$load, 64 clients, all three nodes: processor time by stack" \
	--minwidth 0.4 <"$place/stacks" >"$output"
echo "Functions by their own share, in percent:"
awk '{ n = $NF; $NF = ""; k = split($0, frame, ";"); own[frame[k]] += n; all += n }
	END { for (f in own) printf "%5.1f  %s\n", own[f] * 100 / all, f }' "$place/stacks" | sort -rn | head -30

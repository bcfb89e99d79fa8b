#!/usr/bin/env bash
# redis-cli against a ring: plain, as a cluster client, and in both versions of the protocol.
set -euo pipefail
ask() { redis-cli -h "$ANNULUS_HOST" -p "$ANNULUS_PORT" "$@"; }
is() { [ "$1" = "$2" ] || { echo "redis-cli: got '$1', wanted '$2'"; exit 1; }; }

for mode in "" -c -3; do
  ask $mode DEL cli:n cli:s cli:h >/dev/null
  is "$(ask $mode SET cli:a x)" OK
  is "$(ask $mode GET cli:a)" x
  is "$(ask $mode INCRBY cli:n 41)$(ask $mode INCR cli:n)" 4142
  is "$(ask $mode SADD cli:s a b)" 2
  is "$(ask $mode HSET cli:h f v)" 1
  is "$(ask $mode HGET cli:h f)" v
done
for at in $(seq 500); do echo "SET cli:p$at $at"; done | ask --pipe | grep -q "errors: 0, replies: 500"
is "$(ask --scan --pattern 'cli:p*' | sort -u | wc -l)" 500
ask --cluster check "$ANNULUS_HOST:$ANNULUS_PORT" | grep -q "All 16384 slots covered"
ask ANNULUS WHERE cli:a | grep -q preference-list
echo "redis-cli: plain, -c, -3, --pipe, --scan, --cluster check"

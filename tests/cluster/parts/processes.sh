# shellcheck shell=bash
# Processes of the cluster: started in its network namespace and in its own
# cgroup, recorded by id and start time, and ended by nothing else.
#
# The cgroup knows what the record cannot: containers, and what a crashed
# up.sh left. Both are this cluster's alone, so no search by name is needed.

# Every hierarchy of a version 1 host, or the only one of version 2.
cgroup_hierarchies() {
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    echo /sys/fs/cgroup
  else
    find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d
  fi
}

# The hierarchy by which processes are found again; any single one would do.
cgroup_of_record() {
  local hierarchy
  for hierarchy in /sys/fs/cgroup/pids /sys/fs/cgroup/freezer /sys/fs/cgroup/systemd; do
    [[ ! -e /sys/fs/cgroup/cgroup.controllers && -e $hierarchy/cgroup.procs ]] || continue
    echo "$hierarchy"
    return
  done
  echo /sys/fs/cgroup
}

# make_cgroup PATH: in every hierarchy; a version 1 cpuset starts empty and
# would take no process, so it inherits level by level.
make_cgroup() {
  local hierarchy level part file
  while read -r hierarchy; do
    level=$hierarchy
    for part in ${1//\// }; do
      if [[ -e $level/cgroup.controllers && $hierarchy == /sys/fs/cgroup ]]; then
        sed 's/[^ ]\+/+&/g' "$level/cgroup.controllers" >"$level/cgroup.subtree_control" 2>/dev/null || true
      fi
      mkdir -p "$level/$part"
      for file in cpuset.cpus cpuset.mems; do
        [[ ${hierarchy##*/} == cpuset && -e $level/$file ]] || continue
        cat "$level/$file" >"$level/$part/$file"
      done
      level+=/$part
    done
  done < <(cgroup_hierarchies)
}

# weigh PATH SHARES: its part of the processors where others want them too; 1024
# is that of a group of which nothing is said. Version 2 has another scale, by
# the kubelet's own rule.
weigh() {
  if [[ -e /sys/fs/cgroup/cpu/$1/cpu.shares ]]; then
    echo "$2" >"/sys/fs/cgroup/cpu/$1/cpu.shares"
  elif [[ -e /sys/fs/cgroup/$1/cpu.weight ]]; then
    echo $((1 + ($2 - 2) * 9999 / 262142)) >"/sys/fs/cgroup/$1/cpu.weight"
  fi
}

# cgroup_processes [PATH]: the ids of all processes in and below it.
cgroup_processes() {
  local top
  top=$(cgroup_of_record)/$cgroup${1:+/$1}
  [[ -d $top ]] || return 0
  find "$top" -name cgroup.procs -exec cat {} + 2>/dev/null | sort -un
}

# The start of a process, which tells it from a later one with its id; fails for
# one that has ended, waited for or not.
start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The name in parentheses may hold anything, so fields are counted after it.
  awk '$1 == "Z" {exit 1} {print $20}' <<<"${stat##*) }"
}

# alive NAME: the recorded process still runs and is not another with its id.
alive() {
  local pid started
  [[ -f $run/pids/$1 ]] || return 1
  read -r pid started <"$run/pids/$1"
  [[ -n $started && $(start_time "$pid") == "$started" ]]
}

# spawn NAME CGROUP COMMAND...: unless it is already running. Its output goes
# to log/NAME.log. It inherits no other open file: neither our lock, nor a pipe
# whose reader waits for its end.
spawn() {
  local name=$1 group=$cgroup/$2 procs fd
  shift 2
  alive "$name" && return
  make_cgroup "$group"
  procs=$(cgroup_of_record)/$group/cgroup.procs
  (
    for fd in /proc/"$BASHPID"/fd/*; do
      fd=${fd##*/}
      ((fd <= 2)) || exec {fd}>&-
    done
    cd /
    echo "$BASHPID" >"$procs"
    exec setsid nsenter --net="$netns" -- "$@"
  ) </dev/null >>"$run/log/$name.log" 2>&1 &
  printf '%s %s\n' $! "$(start_time $!)" >"$run/pids/$name"
}

# stop SIGNAL NAME...: signals those of them that run.
stop() {
  local signal=$1 name pid
  shift
  for name in "$@"; do
    alive "$name" || continue
    read -r pid _ <"$run/pids/$name"
    kill -"$signal" "$pid" 2>/dev/null || true
  done
}

# await NAME SECONDS WHAT PROBE...: until the probe succeeds. When NAME ends or
# the time is over, says so with the end of its log, and gives up.
await() {
  local name=$1 seconds=$2 what=$3
  local deadline=$((SECONDS + seconds))
  shift 3
  until "$@" >/dev/null 2>&1; do
    if ! alive "$name"; then
      explain "$name" "ended before $what"
    elif ((SECONDS >= deadline)); then
      explain "$name" "not $what after $seconds s"
    fi
    sleep 0.1
  done
}

explain() {
  {
    echo "${0##*/}: $1 $2. The end of $run/log/$1.log:"
    tail -n 25 "$run/log/$1.log" | cut -c1-400 | sed 's/^/  | /'
  } >&2
  exit 1
}

# kill_cgroup [PATH]: all that is in it, until nothing is.
kill_cgroup() {
  local pids deadline=$((SECONDS + 20))
  while pids=$(cgroup_processes "${1:-}") && [[ -n $pids ]]; do
    # shellcheck disable=SC2086 # one word for each process
    kill -KILL $pids 2>/dev/null || true
    ((SECONDS < deadline)) || die "processes that cannot be killed: ${pids//$'\n'/ }"
    sleep 0.05
  done
}

remove_cgroup() {
  local hierarchy
  while read -r hierarchy; do
    [[ -d $hierarchy/$cgroup ]] || continue
    find "$hierarchy/$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done < <(cgroup_hierarchies)
}

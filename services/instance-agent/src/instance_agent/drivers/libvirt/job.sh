#!/bin/sh
# Runs one script in the guest, once, however often it is asked. Called by the guest agent of QEMU as
# `sh .job FOLDER SECONDS`: it sees that the script runs, waits for its end, and says how it ended:
# first its exit code, or "late", then the last of its output. FOLDER has the script, .command.
own=$1 seconds=$2

run() {
  mkdir "$own/.begun" 2>/dev/null || exit 0 # it runs, or did
  setsid sh "$own/.command" </dev/null >"$own/.output" 2>&1 &
  script=$!
  echo "$script" >"$own/.script"
  setsid sh -c 'sleep "$1"; : >"$2/.late"; kill -9 "$3" "-$3"' - "$seconds" "$own" "$script" &
  watcher=$!
  wait "$script"
  code=$?
  kill -9 "$watcher" "-$watcher" "-$script" 2>/dev/null # what the script left behind too
  [ ! -e "$own/.late" ] || code=late
  echo "$code" >"$own/.ending"
  mv "$own/.ending" "$own/.ended"
}

end() {
  mkdir "$own/.begun" 2>/dev/null && return # now nothing begins any more
  tries=20
  while [ ! -s "$own/.script" ] && [ "$((tries -= 1))" -gt 0 ]; do
    sleep 0.1 # it begins just now
  done
  if [ ! -e "$own/.ended" ] && script=$(cat "$own/.script"); then
    kill -9 "$script" "-$script"
  fi
}

case ${3:-} in
  run) run ;;
  end) end ;;
  outside) # of the guest agent's own unit, so that a script may update or restart it
    if [ -d /run/systemd/system ]; then
      systemd-run --quiet --no-ask-password --scope sh "$own/.job" "$own" "$seconds" run && exit 0
    fi
    run
    ;;
  *)
    setsid sh "$own/.job" "$own" "$seconds" outside </dev/null >/dev/null 2>&1 &
    while [ ! -e "$own/.ended" ] && [ -d "$own" ]; do
      sleep 0.2
    done
    cat "$own/.ended"
    tail -c 2048 "$own/.output"
    ;;
esac

#!/bin/sh
# Rollcall's end in the guest: takes scripts from the agent on a virtio port, runs one at a time, and
# says how each ended. It is the seed's vendor-data, so cloud-init starts it at the first boot.
#
#   agent: hello ID            guest: ready ID
#   agent: run ID BYTES + tar  guest: done ID EXIT-CODE BASE64-OF-THE-LAST-OUTPUT
#
# The tar holds the file .command beside those that it needs. While it runs, a closed connection or
# any word of the agent ends it: that agent is gone, or wants something else.
export ROLLCALL_INSTANCE_ID=@INSTANCE_ID@ ROLLCALL_IMAGE_VERSION=@IMAGE_VERSION@
BASE=/run/rollcall

if [ "${1:-}" != serve ]; then
  again=/var/lib/cloud/scripts/per-boot # for later boots, at which vendor-data is not run
  if [ -d "$again" ] && [ "$0" != "$again/rollcall" ]; then
    cp "$0" "$again/rollcall" && chmod 700 "$again/rollcall"
  fi
  mkdir -p "$BASE"
  mkdir "$BASE/served" 2>/dev/null || exit 0
  setsid sh "$0" serve </dev/null >/dev/null 2>&1 &
  exit 0
fi

find_port() {
  for entry in /sys/class/virtio-ports/*; do
    if [ "$(cat "$entry/name" 2>/dev/null)" = org.rollcall.0 ]; then
      echo "/dev/${entry##*/}"
      return
    fi
  done
}

run() {
  own=$BASE/scripts/$1
  rm -rf "$own"
  mkdir -m 700 "$own"
  dd bs=10240 count="$(($2 / 10240))" iflag=fullblock <&3 2>/dev/null | tar -xf - -C "$own"
  setsid sh "$own/.command" "$own" </dev/null >"$own/.output" 2>&1 &
  script=$!
  (
    read -r _ <&3
    kill -9 "-$script"
  ) 2>/dev/null &
  watcher=$!
  wait "$script"
  code=$?
  kill -9 "$watcher" "-$script" 2>/dev/null # what the script left behind too
  wait "$watcher" 2>/dev/null
  said=$(tail -c 2048 "$own/.output" | base64 | tr -d '\n')
  rm -rf "$own"
  echo "done $1 $code $said" >&3
}

mkdir -m 700 "$BASE/scripts"
# On Debian and its kin no program can be run from /run itself.
mount -t tmpfs -o mode=700,nosuid,nodev tmpfs "$BASE/scripts" 2>/dev/null
modprobe virtio_console 2>/dev/null
while device=$(find_port) && [ -z "$device" ]; do
  sleep 0.2
done
exec 3<>"$device"
while :; do
  if ! read -r verb id bytes <&3; then
    sleep 0.1 # no agent is connected
    continue
  fi
  case $verb in
    hello) echo "ready $id" >&3 ;;
    run) run "$id" "$bytes" ;;
  esac
done

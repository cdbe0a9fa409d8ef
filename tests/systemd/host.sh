#!/usr/bin/env bash
#
# A systemd for trying the service, as the first process of namespaces of its own. As root:
#
#   host.sh start FOLDER           FOLDER/root holds what was installed (make install DESTDIR=FOLDER/root)
#   host.sh run FOLDER COMMAND...  inside, for at most HOST_SECONDS (60)
#   host.sh stop FOLDER
#
# Exit status 77, with a reason, where such namespaces cannot be made.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
folder=$(cd "$2" && pwd)
hierarchy=/sys/fs/cgroup
[ -d $hierarchy/unified ] && hierarchy=$hierarchy/unified
group=$hierarchy/emad-test.$(basename "$folder")

cannot() {
	printf 'skipped: %s\n' "$*"
	exit 77
}

target() {
	printf '[Unit]\nDescription=%s\nDefaultDependencies=no\n%s' "$1" "${2:-}" >"$folder/units/$1.target"
}

start() {
	[ "$(id -u)" -eq 0 ] || cannot 'namespaces for a systemd of its own need root'
	[ -x /lib/systemd/systemd ] || cannot "Debian's package systemd is not installed"
	[ "$(stat -f -c %T $hierarchy)" = cgroup2fs ] || cannot "$hierarchy is not a cgroup2 file system"
	grep -qw overlay /proc/filesystems || cannot 'the kernel has no overlay file system'
	mkdir "$group" 2>/dev/null || cannot "$hierarchy cannot be written"
	mkdir -p "$folder/units" "$folder/empty"
	for name in basic sysinit shutdown sockets paths timers slices umount exit multi-user network; do
		target $name
	done
	# Where it is installed, the journal is the real one, but for its kernel messages.
	cp /lib/systemd/system/systemd-journald.service /lib/systemd/system/systemd-journald.socket \
		/lib/systemd/system/systemd-journald-dev-log.socket "$folder/units/" 2>/dev/null || :
	target test $'Requires=basic.target multi-user.target\nAfter=basic.target multi-user.target\n'
	(
		echo $BASHPID >"$group/cgroup.procs"
		exec env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb \
			unshare --pid --fork --kill-child --mount --uts --ipc --cgroup -- bash "$here/inner.sh" "$folder"
	) >"$folder/log" 2>&1 </dev/null &
	echo $! >"$folder/unshare.pid"
	for ((i = 0; i < 300; i++)); do
		pid=$(pgrep -P "$(cat "$folder/unshare.pid")" | head -n 1) || pid=
		if [ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = systemd ]; then
			echo "$pid" >"$folder/pid"
			timeout 5 nsenter -t "$pid" -a systemctl is-system-running 2>/dev/null |
				grep -qE 'running|degraded' && return
		fi
		kill -0 "$(cat "$folder/unshare.pid")" 2>/dev/null || break
		sleep .1
	done
	tail -n 20 "$folder/log"
	"$0" stop "$folder"
	cannot 'a systemd does not start in namespaces here'
}

stop() {
	[ ! -e "$folder/unshare.pid" ] || kill -KILL "$(cat "$folder/unshare.pid")" 2>/dev/null || :
	for ((i = 0; i < 100; i++)); do
		find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || :
		[ -d "$group" ] || break
		sleep .05
	done
	rm -f "$folder/unshare.pid" "$folder/pid"
}

case $1 in
start) start ;;
run)
	shift 2
	exec timeout "${HOST_SECONDS:-60}" nsenter -t "$(cat "$folder/pid")" -a env -i PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		LANG=C.UTF-8 "$@"
	;;
stop) stop ;;
esac

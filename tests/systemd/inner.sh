#!/usr/bin/env bash
#
# The first process of fresh namespaces: makes a file system that is the host's, read-only, with private copies of what
# may be written, puts what was installed over it, and becomes systemd. Called by host.sh with the folder as argument.
set -euo pipefail
folder=$1

mount --make-rprivate /
mount -t proc -o nosuid,nodev,noexec proc /proc
mount --bind "$folder" "$folder"
exec 9<"$folder" # /tmp, where the folder may be, is about to be hidden
mkdir -p "$folder/copies"
mount -t tmpfs -o mode=755 tmpfs "$folder/copies"
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
for place in etc var usr/local; do
	copy=$folder/copies/${place//\//-}
	mkdir -p "$copy" "$copy.work"
	mount -t overlay overlay -o "lowerdir=/$place,upperdir=$copy,workdir=$copy.work" "/$place"
done
mount -o remount,bind,ro /
mount -t tmpfs -o mode=1777 tmpfs /tmp
mkdir -p "$folder"
mount -c --bind /proc/self/fd/9 "$folder"
exec 9<&-
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
mkdir -p /run/lock
# Systemd sets kernel parameters when it starts; these would be the host's.
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 /sys/fs/cgroup
# Credentials are mounts, and those must reach the services.
mount --make-rshared /
cp -a "$folder/root/usr/local/." /usr/local/
# What a disk keeps while the host is off.
mkdir -p "$folder/state" /var/lib/emad
mount --bind "$folder/state" /var/lib/emad

# The host's own units stay out of it.
export SYSTEMD_UNIT_PATH=$folder/units:/etc/systemd/system:/run/systemd/system:/usr/local/lib/systemd/system
export SYSTEMD_GENERATOR_PATH=$folder/empty SYSTEMD_ENVIRONMENT_GENERATOR_PATH=$folder/empty
export container=emad-test
exec /lib/systemd/systemd --system --unit=test.target --machine-id=0123456789abcdef0123456789abcdef \
	--show-status=false --log-target=console --log-level=info

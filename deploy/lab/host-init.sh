#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# host-init.sh HOST_DIRECTORY CGROUP_CONTROLLER...
# Process 1 of a lab host: makes the host's view of the file system, then becomes the init that starts its services.
# Runs in namespaces of its own (see boot.ts). Shell, because its last act is to become another program as process 1.
set -eu
dir=$1
shift

# The lab writes one line when the cables are plugged. End of file means that the lab command died: then so does the host.
read -r _go
exec </dev/null

# sysfs shows the network namespace of whoever mounts it, cgroupfs the cgroup namespace.
# The machine's own mounts go first: libvirt reads every line of /proc/mounts, covered ones too.
umount -R -l /sys
mount -t sysfs sysfs /sys
mount -t tmpfs -o mode=755,size=1m cgroup /sys/fs/cgroup
for controller in "$@"; do
  mkdir "/sys/fs/cgroup/$controller"
  mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
done

mount -t tmpfs -o mode=755,size=256m run /run
mkdir -p /run/lock /run/ceph /run/libvirt /run/busbar /run/service

while read -r source target options; do
  mount --bind "$source" "$target"
  # The kernel takes options of a bind mount in a second step only.
  [ -z "$options" ] || mount -o "remount,bind,$options" "$target"
done <"$dir/mounts"

hostname "$(cat /etc/hostname)"
cp -R "$dir/services/." /run/service/
# Where `sv` looks by default.
mount --bind /run/service /etc/service

exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
  tini -- runsvdir -P /run/service

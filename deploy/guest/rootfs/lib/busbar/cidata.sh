# SPDX-License-Identifier: Apache-2.0
# cloud-init's NoCloud data: sets name and instance_id, writes /run/network (one line per interface) and /run/runcmd.

read_cidata() {
  local own sysfs device kind
  own=none
  [ ! -s /run/own-partition ] || own=$(disk_of "$(cat /run/own-partition)")
  name=busbar-guest
  instance_id=
  : > /run/network
  for sysfs in /sys/class/block/sr* /sys/class/block/[vsh]d*; do
    device=/dev/${sysfs##*/}
    case $device in "/dev/$own"*) continue ;; esac
    [ -b "$device" ] || continue
    kind=$(cidata_kind "$device") || continue
    echo "$device" > /run/cidata-device
    if [ "$kind" = iso9660 ]; then load isofs; else load vfat; load nls_cp437; load nls_ascii; fi
    mkdir -p /run/cidata
    if mount -t "$kind" -o ro "$device" /run/cidata; then
      parse_cidata
      umount /run/cidata
    else
      say "warning: cannot mount cidata on $device"
    fi
    return
  done
}

# flat FILE: its YAML as "path=value" lines; a missing file is an empty one.
flat() { [ ! -f "/run/cidata/$1" ] || awk -f /lib/busbar/yaml.awk "/run/cidata/$1"; }

parse_cidata() {
  local key value
  flat meta-data > /run/meta-data
  flat user-data > /run/user-data
  flat network-config > /run/network-config
  # Later wins: cloud-init prefers the hostname of user-data to that of meta-data.
  while IFS='=' read -r key value; do
    case $key in
      instance-id) instance_id=$value ;;
      local-hostname | hostname) name=${value%%.*} ;;
    esac
  done < /run/meta-data
  while IFS='=' read -r key value; do
    [ "$key" != hostname ] || name=${value%%.*}
  done < /run/user-data
  name=$(echo "$name" | tr -cd 'A-Za-z0-9-')
  name=${name:-busbar-guest}
  awk -f /lib/busbar/network.awk /run/network-config > /run/network
  awk -f /lib/busbar/runcmd.awk /run/user-data > /run/runcmd
}

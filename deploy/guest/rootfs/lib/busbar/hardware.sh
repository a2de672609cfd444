# SPDX-License-Identifier: Apache-2.0
# Drivers and disks. There is no udev and no modprobe: the build wrote, for each driver, the modules it needs in order.

modules=/lib/modules/$(uname -r)

# load DRIVER [PARAMETER]: the parameters go to each of its modules; the kernel ignores those it does not know.
load() {
  local wanted module
  [ -e "$modules/$1.needs" ] || return 0
  read -r wanted < "$modules/$1.needs"
  shift
  for module in $wanted; do
    [ -d "/sys/module/$module" ] || insmod "$modules/$module.ko" "$@" 2>/dev/null
  done
}

load_drivers() {
  local device vendor id class
  for device in /sys/bus/pci/devices/*; do
    read -r vendor < "$device/vendor"
    read -r id < "$device/device"
    read -r class < "$device/class"
    case $vendor:$id:$class in
      0x1af4:*) load virtio_pci ;;
      *:0x0101*) load scsi_mod scan=sync; load ata_piix ;;
      *:0x010601) load scsi_mod scan=sync; load ahci ;;
      0x8086:0x25ab:*) load i6300esb ;;
      0x8086:0x100e:*) load e1000 ;;
      0x8086:0x10d3:*) load e1000e ;;
    esac
  done
  for device in /sys/bus/virtio/devices/*; do
    [ -e "$device/device" ] || continue
    read -r id < "$device/device"
    case $id in
      0x0001) load virtio_net ;;
      0x0002) load virtio_blk ;;
      # Asynchronous scanning would let the disks appear after the search for them.
      0x0008) load scsi_mod scan=sync; load virtio_scsi ;;
    esac
  done
  for device in /sys/bus/scsi/devices/*/type; do
    [ -e "$device" ] || continue
    read -r id < "$device"
    case $id in
      0) load sd_mod ;;
      5) load sr_mod ;;
    esac
  done
}

# What `ready` does not wait for: agent, entropy, memory balloon, and the drivers that hot-plugged devices will need.
load_remaining_drivers() {
  local driver
  for driver in evdev button virtio_console virtio_rng virtio_balloon virtio_blk virtio_net scsi_mod virtio_scsi sd_mod sr_mod; do
    load "$driver"
  done
}

# The guest's own disk is known by the name of its reserved partition.
own_partition() {
  local partition line
  for partition in /sys/class/block/[vsh]d*[0-9]; do
    [ -e "$partition/uevent" ] || continue
    # Without a process for each partition: this is on the way to "ready".
    while read -r line; do
      if [ "$line" = PARTNAME=busbar-counter ]; then
        echo "${partition##*/}"
        return 0
      fi
    done < "$partition/uevent"
  done
  return 1
}

# disk_of PARTITION: the disk it lies on.
disk_of() {
  local path
  path=$(readlink -f "/sys/class/block/$1/..")
  echo "${path##*/}"
}

wait_for_own_disk() {
  local tries=0
  mkdir -p /run
  # Booted with -kernel there is none to wait for.
  grep -q busbar.own-disk /proc/cmdline || return 0
  until own_partition > /run/own-partition; do
    tries=$((tries + 1))
    if [ $tries -gt 40 ]; then
      say 'warning: own disk not found (no driver for its bus?)'
      return 0
    fi
    sleep 0.05
  done
}

# volume_label DEVICE: label of an iso9660 or FAT volume, padded with blanks.
volume_label() {
  local sector
  sector=$(dd if="$1" bs=2048 skip=16 count=1 2>/dev/null | tr '\0' ' ')
  if [ "${sector:1:5}" = CD001 ]; then
    echo "iso9660 ${sector:40:32}"
    return
  fi
  sector=$(dd if="$1" bs=512 count=1 2>/dev/null | tr '\0' ' ')
  if [ "${sector:54:4}" = FAT1 ]; then
    echo "vfat ${sector:43:11}"
  elif [ "${sector:82:5}" = FAT32 ]; then
    echo "vfat ${sector:71:11}"
  fi
}

# cidata_kind DEVICE: prints the file system when it is a cloud-init volume.
cidata_kind() {
  local label
  label=$(volume_label "$1")
  case ${label#* } in
    [cC][iI][dD][aA][tT][aA] | [cC][iI][dD][aA][tT][aA]\ *) echo "${label%% *}" ;;
    *) return 1 ;;
  esac
}

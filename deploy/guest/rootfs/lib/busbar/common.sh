# SPDX-License-Identifier: Apache-2.0
# Shared by the guest's scripts: what it says, and the record in sector 0 of the data disk.

say() {
  # Not behind the prompt of the shell on the same line.
  [ ! -e /run/console.started ] || echo > /dev/console
  echo "busbar-guest: $*" > /dev/console
}

# record_of COUNTER: the text of sector 0. counter-record.ts is the same in TypeScript.
# The checksum is plain shell arithmetic: a CRC would cost a process five times a second.
record_of() {
  printf 'BUSBAR %020d %08x\n' "$1" $((($1 * 2654435761 + 1112888130) & 4294967295))
}

# counter_of RECORD: prints the counter, or fails when the record is not a whole one.
counter_of() {
  local digits
  digits=${1#BUSBAR }
  digits=${digits%% *}
  # The shell would read leading zeroes as octal.
  digits=${digits#"${digits%%[!0]*}"}
  case $digits in *[!0-9]*) return 1 ;; esac
  [ "$1" = "$(record_of "${digits:-0}")" ] || return 1
  echo "${digits:-0}"
}

# read_record DEVICE BLOCK_BYTES: sector 0 from the disk itself, past the page cache, without the padding.
read_record() { dd if="$1" bs="$2" count=1 iflag=direct 2>/dev/null | tr -d '\0'; }

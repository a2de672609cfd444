# SPDX-License-Identifier: Apache-2.0
# Applies /run/network. Without cloud-init's word on it, the first card asks DHCP.

# card_for ID MAC POSITION: by address, else by name, else the n-th card.
card_for() {
  local card address position=0
  for card in /sys/class/net/*; do
    read -r address < "$card/address"
    if [ "$2" != - ] && [ "$address" = "$2" ]; then echo "${card##*/}"; return 0; fi
  done
  [ "$2" = - ] || return 1
  if [ -d "/sys/class/net/$1" ]; then echo "$1"; return 0; fi
  for card in /sys/class/net/*; do
    [ -e "$card/device" ] || continue
    if [ $position = "$3" ]; then echo "${card##*/}"; return 0; fi
    position=$((position + 1))
  done
  return 1
}

configure_network() {
  local position=0 line card id mac dhcp addresses gateway mtu dns address
  ip link set lo up
  # The switches learn at once where a guest is that was restarted or reconnected elsewhere.
  echo 1 > /proc/sys/net/ipv4/conf/all/arp_notify
  echo 1 > /proc/sys/net/ipv4/conf/default/arp_notify
  [ -s /run/network ] || echo 'id=- mac=- dhcp=1 addresses=- gateway=- mtu=- dns=-' > /run/network
  : > /run/addressed
  while read -r line; do
    # network.awk lets through only characters that are harmless here.
    eval "local $line"
    if ! card=$(card_for "$id" "$mac" $position); then
      say "warning: no network card for $id"
      continue
    fi
    position=$((position + 1))
    [ "$mtu" = - ] || ip link set "$card" mtu "$mtu"
    ip link set "$card" up
    for address in $(echo "$addresses" | tr ',' ' '); do
      [ "$address" != - ] || continue
      ip address add "$address" dev "$card"
      say "address=${address%/*}"
      echo "$address" >> /run/addressed
    done
    [ "$gateway" = - ] || ip route add default via "$gateway" dev "$card" || say "warning: gateway $gateway refused"
    [ "$dns" = - ] || echo "$dns" | tr ',' '\n' | sed 's/^/nameserver /' >> /etc/resolv.conf
    # Asks for two seconds, then goes on in the background.
    [ "$dhcp" != 1 ] || udhcpc -i "$card" -b -t 2 -T 1 -S -x "hostname:$name" -s /lib/busbar/lease > /dev/null 2>&1
  done < /run/network
  [ -s /run/addressed ] || say 'address=none'
}

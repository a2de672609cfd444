# SPDX-License-Identifier: Apache-2.0
# From a flattened network-config (version 2 or 1) to one line per interface:
#   id=<id> mac=<mac|-> dhcp=<0|1> addresses=<a/b,c/d|-> gateway=<ip|-> mtu=<n|-> dns=<ip,ip|->

function add(list, item) { return list == "" ? item : list "," item }
function or_none(text) { return text == "" ? "-" : text }
function seen(id) { if (!(id in known)) { known[id] = 1; order[++total] = id } }

# 255.255.255.0 → 24
function bits(mask,   part, count, at, number) {
  if (mask !~ /\./) return mask
  split(mask, part, "."); count = 0
  for (at = 1; at <= 4; at++) for (number = part[at]; number >= 128; number = (number - 128) * 2) count++
  return count
}

{
  at = index($0, "=")
  key = substr($0, 1, at - 1); val = substr($0, at + 1)
  # What is not part of an address cannot be meant, and must not reach the shell.
  gsub(/[^A-Za-z0-9.:\/_-]/, "", val)
  gsub(/[^A-Za-z0-9.:\/_-]/, "", key)
  sub(/^network\//, "", key)
  count = split(key, part, "/")
}

part[1] == "ethernets" && count >= 3 {
  id = part[2]; seen(id)
  if (part[3] == "match" && part[4] == "macaddress") mac[id] = tolower(val)
  else if (part[3] == "dhcp4") dhcp[id] = (val ~ /^(true|yes|on)$/)
  else if (part[3] == "addresses") addresses[id] = add(addresses[id], val)
  else if (part[3] == "gateway4") gateway[id] = val
  else if (part[3] == "mtu") mtu[id] = val
  else if (part[3] == "nameservers" && part[4] == "addresses") dns[id] = add(dns[id], val)
  else if (part[3] == "routes" && part[5] == "to") route_to[id, part[4]] = val
  else if (part[3] == "routes" && part[5] == "via") route_via[id, part[4]] = val
  if (part[3] == "routes" && route_to[id, part[4]] ~ /^(default|0\.0\.0\.0\/0)$/) gateway[id] = route_via[id, part[4]]
}

part[1] == "config" && count >= 3 {
  id = part[2]
  if (part[3] == "type") type[id] = val
  if (part[3] == "type" && val == "physical") seen(id)
  else if (part[3] == "name") name[id] = val
  else if (part[3] == "mac_address") mac[id] = tolower(val)
  else if (part[3] == "mtu") mtu[id] = val
  else if (part[3] == "address") global_dns = add(global_dns, val)
  else if (part[3] == "subnets") {
    if (part[5] == "type" && val ~ /^dhcp4?$/) dhcp[id] = 1
    else if (part[5] == "address") subnet[id, part[4]] = val
    else if (part[5] == "netmask") netmask[id, part[4]] = bits(val)
    else if (part[5] == "gateway") gateway[id] = val
    else if (part[5] == "dns_nameservers") dns[id] = add(dns[id], val)
    last_subnet[id] = part[4]
  }
}

END {
  for (at = 1; at <= total; at++) {
    id = order[at]
    if (id in last_subnet) for (item = 0; item <= last_subnet[id]; item++) if ((id, item) in subnet) {
      text = subnet[id, item]
      if (text !~ /\// && (id, item) in netmask) text = text "/" netmask[id, item]
      addresses[id] = add(addresses[id], text)
    }
    print "id=" (id in name ? name[id] : id) " mac=" or_none(mac[id]) " dhcp=" (dhcp[id] ? 1 : 0) \
      " addresses=" or_none(addresses[id]) " gateway=" or_none(gateway[id]) " mtu=" or_none(mtu[id]) \
      " dns=" or_none(dns[id] == "" ? global_dns : dns[id])
  }
}

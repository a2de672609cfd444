# SPDX-License-Identifier: Apache-2.0
# From flattened user-data to a shell script: each item of runcmd is a command line, or a list of words.

function quoted(text) { gsub(/'/, "'\\''", text); return "'" text "'" }

{
  at = index($0, "=")
  key = substr($0, 1, at - 1); val = substr($0, at + 1)
  count = split(key, part, "/")
}
part[1] == "runcmd" && count == 2 { lines[part[2]] = val }
part[1] == "runcmd" && count == 3 { lines[part[2]] = lines[part[2]] (part[3] == 0 ? "" : " ") quoted(val) }
part[1] == "runcmd" && part[2] + 1 > total { total = part[2] + 1 }
END { for (at = 0; at < total; at++) print lines[at] }

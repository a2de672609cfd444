# SPDX-License-Identifier: Apache-2.0
# Flattens the YAML that cloud-init files use into lines "path/to/key=value"; list items are numbered from 0.
# Understood: block maps and lists, flow maps and lists (so JSON as well), quotes, comments, block scalars (joined by blanks).
# Not understood: anchors, tags, plain scalars over several lines.

function trim(text) { sub(/^[ \t]+/, "", text); sub(/[ \t\r]+$/, "", text); return text }

# A comment starts with # at the beginning or after a blank, outside quotes.
function without_comment(text,   at, char, quote, before) {
  quote = ""; before = " "
  for (at = 1; at <= length(text); at++) {
    char = substr(text, at, 1)
    if (quote != "") { if (char == quote) quote = "" }
    else if ((char == "\"" || char == "'") && before ~ /[ \t\[{,:-]/) quote = char
    else if (char == "#" && before ~ /[ \t]/) return substr(text, 1, at - 1)
    before = char
  }
  return text
}

function unquoted(text,   first) {
  text = trim(text)
  first = substr(text, 1, 1)
  if (length(text) >= 2 && (first == "\"" || first == "'") && substr(text, length(text), 1) == first) {
    text = substr(text, 2, length(text) - 2)
    if (first == "\"") { gsub(/\\"/, "\"", text); gsub(/\\\\/, "\\", text) }
    else gsub(/''/, "'", text)
  }
  return text
}

function path(   level, text) {
  text = ""
  for (level = 1; level <= depth; level++) text = text (level > 1 ? "/" : "") keys[level]
  return text
}

function emit(where, value) { if (where != "") print where "=" value }

# Position of the colon that ends a key, or 0.
function colon(text,   at, char, quote) {
  quote = ""
  for (at = 1; at <= length(text); at++) {
    char = substr(text, at, 1)
    if (quote != "") { if (char == quote) quote = "" }
    else if (at == 1 && (char == "\"" || char == "'")) quote = char
    else if (char == ":" && (at == length(text) || substr(text, at + 1, 1) ~ /[ \t]/)) return at
  }
  return 0
}

function balance(text,   at, char, quote, open, before) {
  quote = ""; open = 0; before = " "
  for (at = 1; at <= length(text); at++) {
    char = substr(text, at, 1)
    if (quote != "") { if (char == "\\" && quote == "\"") at++; else if (char == quote) quote = "" }
    # A quote within a word is part of it.
    else if ((char == "\"" || char == "'") && before ~ /[ \t\[{,:]/) quote = char
    else if (char == "[" || char == "{") open++
    else if (char == "]" || char == "}") open--
    before = char
  }
  return open
}

# Flow values: `flow` is the text, `flow_at` the position; flow_value emits what it reads under `where`.
function blanks() { while (substr(flow, flow_at, 1) ~ /[ \t]/) flow_at++ }

function token(stop,   from, char) {
  blanks()
  from = flow_at
  char = substr(flow, flow_at, 1)
  if (char == "\"" || char == "'") {
    flow_at++
    while (flow_at <= length(flow) && substr(flow, flow_at, 1) != char) {
      if (char == "\"" && substr(flow, flow_at, 1) == "\\") flow_at++
      flow_at++
    }
    flow_at++
  } else {
    while (flow_at <= length(flow)) {
      char = substr(flow, flow_at, 1)
      if (index(",]}", char)) break
      # A MAC address has colons too: only one before a blank ends a key.
      if (stop == ":" && char == ":" && substr(flow, flow_at + 1, 1) ~ /[ \t]|^$/) break
      flow_at++
    }
  }
  return unquoted(substr(flow, from, flow_at - from))
}

function flow_value(where,   count, key, char, started) {
  blanks()
  char = substr(flow, flow_at, 1)
  if (char != "[" && char != "{") { emit(where, token("")); return }
  flow_at++
  count = 0
  while (flow_at <= length(flow)) {
    blanks()
    started = flow_at
    if (index("]}", substr(flow, flow_at, 1))) { flow_at++; return }
    if (char == "{") {
      key = token(":"); blanks()
      if (substr(flow, flow_at, 1) == ":") flow_at++
    } else key = count++
    flow_value(where (where == "" ? "" : "/") key)
    blanks()
    if (substr(flow, flow_at, 1) == ",") flow_at++
    if (flow_at == started) return
  }
}

function value(indent, text) {
  if (text ~ /^[|>][-+0-9]*$/) { block_indent = indent; block_where = path(); block_text = ""; in_block = 1 }
  else if (text ~ /^[\[{]/) {
    if (balance(text) > 0) { flow_pending = text; flow_where = path(); return }
    flow = text; flow_at = 1; flow_value(path())
  } else emit(path(), unquoted(text))
}

function node(indent, text,   at, rest, parent) {
  if (text == "-" || text ~ /^-[ \t]/) {
    while (depth > 0 && (indents[depth] > indent || (indents[depth] == indent && dashes[depth]))) depth--
    parent = path()
    depth++; indents[depth] = indent; dashes[depth] = 1; keys[depth] = items[parent]++
    rest = substr(text, 2)
    at = match(rest, /[^ \t]/)
    if (at) node(indent + at, substr(rest, at))
    return
  }
  at = text ~ /^[\[{]/ ? 0 : colon(text)
  if (!at) { value(indent, text); return }
  while (depth > 0 && indents[depth] >= indent) depth--
  depth++; indents[depth] = indent; dashes[depth] = 0; keys[depth] = unquoted(substr(text, 1, at - 1))
  rest = trim(substr(text, at + 1))
  if (rest != "") value(indent, rest)
}

{ sub(/\r$/, "") }

in_block {
  match($0, /^ */)
  if ($0 ~ /^[ \t]*$/) next
  if (RLENGTH > block_indent) { block_text = block_text (block_text == "" ? "" : " ") trim($0); next }
  emit(block_where, block_text); in_block = 0
}

{
  line = without_comment($0)
  if (trim(line) == "" || line ~ /^(---|\.\.\.)/) next
  if (flow_pending != "") {
    flow_pending = flow_pending " " trim(line)
    if (balance(flow_pending) <= 0) { flow = flow_pending; flow_pending = ""; flow_at = 1; flow_value(flow_where) }
    next
  }
  match(line, /^ */)
  node(RLENGTH, trim(line))
}

END { if (in_block) emit(block_where, block_text) }

// SPDX-License-Identifier: Apache-2.0
/**
 * What a shell sources. All the knowledge is in `busbar __complete` (complete.ts), whose answer is a line for each
 * candidate, value and description with a tab between them, and a last line that begins with a colon: `:files` (the
 * shell's own file names), `:nospace` (the word goes on) or `:`.
 */
export type Shell = 'bash' | 'zsh' | 'fish';

/** bash splits words at "=" and ":" too; therefore it sends the line as typed, and gets back what follows those. */
const BASH = `# bash completion for busbar
_busbar() {
  local lines directive i
  COMPREPLY=()
  mapfile -t lines < <("$1" __complete bash "$COMP_POINT" "$COMP_LINE" 2>/dev/null)
  ((\${#lines[@]} > 0)) || return 0
  directive="\${lines[-1]}"
  for ((i = 0; i < \${#lines[@]} - 1; i++)); do
    COMPREPLY+=("\${lines[i]%%$'\\t'*}")
  done
  case "$directive" in
    :files) compopt -o default -o filenames ;;
    :nospace) compopt -o nospace ;;
  esac
}
complete -F _busbar busbar
`;

const ZSH = `#compdef busbar
_busbar() {
  local -a lines candidates
  local line value directive
  lines=("\${(@f)$("\${words[1]}" __complete zsh -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  directive="\${lines[-1]}"
  lines[-1]=()
  if [[ "$directive" == ":files" ]]; then
    _files
    return
  fi
  for line in "\${lines[@]}"; do
    value="\${line%%$'\\t'*}"
    candidates+=("\${value//:/\\\\:}:\${line#*$'\\t'}")
  done
  if [[ "$directive" == ":nospace" ]]; then
    _describe -V busbar candidates -S ''
  else
    _describe -V busbar candidates
  fi
}
if [[ "\${funcstack[1]}" == "_busbar" ]]; then
  _busbar "$@"
else
  compdef _busbar busbar
fi
`;

const FISH = `# fish completion for busbar
function __busbar_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l lines ($words[1] __complete fish -- $words[2..-1] 2>/dev/null)
    test (count $lines) -gt 0; or return
    set -l directive $lines[-1]
    if test "$directive" = ":files"
        __fish_complete_path (commandline -ct)
        return
    end
    for line in $lines
        test "$line" = "$directive"; or echo $line
    end
end
complete -c busbar -f -a '(__busbar_complete)'
`;

export const SCRIPTS: Readonly<Record<Shell, string>> = { bash: BASH, zsh: ZSH, fish: FISH };

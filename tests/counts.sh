# For bash to source: what a script has run so far, and how it counts the rest. Such a script ends with
# `report`, the line "N passed, N failed, N skipped" and its exit status.
passed=0 failed=0 skipped=0

pass() { passed=$((passed + 1)); }
fail() {
  failed=$((failed + 1))
  echo "FAILED $*"
}
skip() {
  skipped=$((skipped + 1))
  echo "SKIPPED $*"
}

# Runs a command whose last line is a count and adds that up; anything else is one failure.
counted() {
  local log last status=0 p f s
  log=$(mktemp)
  "$@" 2>&1 | tee "$log" | grep --line-buffered -vE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$'
  status=${PIPESTATUS[0]}
  last=$(tail -n 1 "$log")
  rm -f "$log"
  if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[3]}
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    [ "$status" -ne 0 ] && [ "$f" -eq 0 ] && fail "$1: exit status $status"
  else
    fail "$1: exit status $status, no count"
  fi
}

report() {
  echo "$passed passed, $failed failed, $skipped skipped"
  [ "$failed" -eq 0 ]
}

#!/usr/bin/env bash
# Runs a program of GoogleTest in as many processes as there are processors, each with its share of the tests:
# tests/sharded.sh PROGRAM [ARGUMENTS]. For tests that no busy machine upsets: times are ratios taken side by side,
# memory is that of the test's own process. The last line is "N passed, N failed, N skipped"; exits 1 if any test
# failed.
set -uo pipefail
jobs=${GM_JOBS:-$(nproc)}
export GTEST_TOTAL_SHARDS=$((jobs > 1 ? 8 * jobs : 1))  # small ones: some ops take far longer than others
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

# The log of a share ends with its exit status.
# shellcheck disable=SC2016 # for the shell that xargs starts
seq 0 $((GTEST_TOTAL_SHARDS - 1)) | LOGS=$logs xargs -P "$jobs" -I{} \
  bash -c 'GTEST_SHARD_INDEX={} "$@" >"$LOGS/{}" 2>&1; echo "status $?" >>"$LOGS/{}"' -- "$@"

passed=0 failed=0 skipped=0
for shard in $(seq 0 $((GTEST_TOTAL_SHARDS - 1))); do
  log=$logs/$shard
  grep -vE '^status |^[0-9]+ passed, |^\[=+\] |^\[ +(PASSED|SKIPPED) +\] |^Note: This is test shard ' "$log"
  counts=$(tail -n 2 "$log" | head -n 1)
  if [[ $counts =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
    f=${BASH_REMATCH[2]}
    [ "$(tail -n 1 "$log")" != "status 0" ] && [ "$f" -eq 0 ] && f=1
    passed=$((passed + BASH_REMATCH[1])) failed=$((failed + f)) skipped=$((skipped + BASH_REMATCH[3]))
  else
    echo "share $shard of $1 ended with $(tail -n 1 "$log") before its last test"
    failed=$((failed + 1))
  fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]

#!/usr/bin/env bash
# Builds and runs all tests. The last line is "N passed, N failed, N skipped"; exits 1 if any test failed.
# GM_SHARED_DATA: folder with real galaxies; tests that need them are skipped without it. GM_CMAKE_ARGS: more
# arguments for cmake. GM_BUILD: build folder.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${GM_BUILD:-build}
if [ -z "${GM_SHARED_DATA:-}" ]; then unset GM_SHARED_DATA; fi  # tests skip when it is absent, not when it is empty

# shellcheck disable=SC2086 # GM_CMAKE_ARGS: several arguments
if ! { tools/setup.sh && cmake --preset release -B "$build" ${GM_CMAKE_ARGS:-} >/dev/null &&
  cmake --build "$build" --parallel "${GM_JOBS:-$(nproc)}"; }; then
  echo "the build failed; no test ran"
  echo "0 passed, 1 failed, 0 skipped"
  exit 1
fi

passed=0 failed=0 skipped=0
mkdir -p "$build/test-logs"
tests=(gm_kernel_tests gm_race_tests gm_unit_tests)
if [ -x "$build/bin/gm_cudnn_tests" ]; then tests+=(gm_cudnn_tests); fi  # a build with CUDA
for test in "${tests[@]}"; do
  log=$build/test-logs/$test.txt
  echo "== $test"
  status=0 shared=()
  if [[ $test =~ kernel|race ]]; then shared=(tests/sharded.sh); fi  # the others measure time and memory too
  "${shared[@]}" "$build/bin/$test" --gtest_brief=1 >"$log" 2>&1 || status=$?
  summary='^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$'
  grep -vE "$summary" "$log" || true
  if counts=$(grep -E "$summary" "$log" | tail -1) && [ -n "$counts" ]; then
    read -r p _ f _ s _ <<<"$counts"
    [ "$status" -ne 0 ] && [ "$f" -eq 0 ] && f=1
  else
    echo "$test ended with status $status before its last test"
    p=0 f=1 s=0
  fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]

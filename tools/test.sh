#!/usr/bin/env bash
# Builds and runs all tests. The last line is "N passed, N failed, N skipped"; exits 1 if any test failed.
# GM_SHARED_DATA: folder with real galaxies; tests that need them are skipped without it. GM_CMAKE_ARGS: more
# arguments for cmake. GM_BUILD: build folder.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
. tests/counts.sh
build=${GM_BUILD:-build}
if [ -z "${GM_SHARED_DATA:-}" ]; then unset GM_SHARED_DATA; fi  # tests skip when it is absent, not when it is empty

# shellcheck disable=SC2086 # GM_CMAKE_ARGS: several arguments
if tools/setup.sh && cmake --preset release -B "$build" ${GM_CMAKE_ARGS:-} >/dev/null &&
  cmake --build "$build" --parallel "${GM_JOBS:-$(nproc)}"; then
  for test in gm_kernel_tests gm_race_tests gm_unit_tests gm_cudnn_tests; do
    if [ ! -x "$build/bin/$test" ] && [ $test = gm_cudnn_tests ]; then continue; fi  # a build without CUDA
    echo "== $test"
    counted tests/sharded.sh "$build/bin/$test" --gtest_brief=1
  done
else
  fail "the build; no test ran"
fi
report

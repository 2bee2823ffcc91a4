#!/usr/bin/env bash
# Runs everything that needs a GPU and writes tests/gpu/results/<device>.json and .md. Needs the NVIDIA driver; no
# network. BUILD: folder of a prepared build (default build-cuda; built here when it lacks the tests, which needs
# nvcc, cuDNN and the packages of tools/setup.sh). Libraries that came with a Python environment are found there.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
build=${BUILD:-build-cuda}

if ! nvidia-smi >/dev/null 2>&1; then
  echo "gpu: no NVIDIA driver answers here" >&2
  exit 1
fi
if [ ! -x "$build/bin/gm_kernel_tests" ]; then
  major=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
  cmake --preset release -B "$build" -DGM_CUDA=ON "-DGM_CUDA_ARCHS=$major-real" >/dev/null &&
    cmake --build "$build" --parallel "${GM_JOBS:-$(nproc)}" || exit 1
fi
# cuDNN and cuBLAS as Python packages carry them.
packages=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null) &&
  LD_LIBRARY_PATH=$(printf '%s:' "$packages"/*/lib)${LD_LIBRARY_PATH:-} && export LD_LIBRARY_PATH

results=tests/gpu/results
mkdir -p "$results"
device=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)
driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1)
commit=$(git rev-parse --short HEAD 2>/dev/null || echo "${GM_COMMIT:-unknown}")
file=$results/$(echo "$device" | tr ' /' '--')
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export GM_REQUIRE_GPU=1

echo "gpu: op tests on $device"
"$build/bin/gm_kernel_tests" --gtest_filter='*cuda*:*Cuda*:*Cudnn*' --gtest_brief=1 2>&1 | tee "$logs/tests"
tests=$(grep -E '^[0-9]+ passed' "$logs/tests" | tail -1)
echo "gpu: training and inference on $device"
"$build/bin/gm_unit_tests" --gtest_filter='DataAugment*:EngineFeed*:ToolsFeed*' --gtest_brief=1 2>&1 | tee "$logs/feed"
feed=$(grep -E '^[0-9]+ passed' "$logs/feed" | tail -1)

sanitizer="not run: no compute-sanitizer here"
if command -v compute-sanitizer >/dev/null; then
  sanitizer="clean"
  for check in memcheck racecheck synccheck initcheck; do
    echo "gpu: compute-sanitizer $check"
    GM_SMALL_CASES=1 compute-sanitizer --tool "$check" --error-exitcode 9 "$build/bin/gm_kernel_tests" \
      --gtest_filter='*cuda*' --gtest_brief=1 >"$logs/$check" 2>&1
    [ $? -eq 9 ] && sanitizer="errors in $check" && tail -40 "$logs/$check"
  done
fi

bench="$logs/bench"
: >"$bench"
if [ -x "$build/bin/gm_bench" ]; then
  echo "gpu: benchmark"
  "$build/bin/gm_bench" --device cuda --json >"$bench" || echo "gpu: the benchmark failed" >&2
fi

python3 - "$file" "$device" "$driver" "$commit" "${tests:-the tests did not finish}" \
  "${feed:-the tests did not finish}" "$sanitizer" "$bench" <<'END'
import datetime, json, sys
file, device, driver, commit, tests, feed, sanitizer, bench = sys.argv[1:]
rows = [json.loads(line) for line in open(bench) if line.startswith("{")]
facts = {"date": datetime.date.today().isoformat(), "device": device, "driver": driver, "commit": commit,
         "tests": tests, "training_and_inference": feed, "sanitizer": sanitizer}
with open(file + ".json", "w") as out:
    json.dump({**facts, "bench": rows}, out, indent=1)
with open(file + ".md", "w") as out:
    out.write("".join(f"- {k}: {v}\n" for k, v in facts.items()))
    if rows:
        keys = list(rows[0])
        out.write("\n| " + " | ".join(keys) + " |\n" + "|---" * len(keys) + "|\n")
        out.write("".join("| " + " | ".join(str(r.get(k, "")) for k in keys) + " |\n" for r in rows))
END
echo "gpu: $file.json, $file.md"
case "$tests;$feed" in *" 0 failed"*";"*" 0 failed"*) [ "$sanitizer" = "${sanitizer#errors}" ] ;; *) false ;; esac

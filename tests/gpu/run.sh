#!/usr/bin/env bash
# Runs everything that needs a GPU, in less than ten minutes, and writes DEVICE.json and DEVICE.md. Needs the NVIDIA
# driver, cuDNN and cuBLAS (those of a Python environment will do) and Python 3; no network.
#   BUILD    folder of a prepared build: build-portable where it is, or build-portable.tar.xz, which is unpacked (both of
#            tests/gpu/bundle.sh, made on any machine), else build-cuda, built here when it lacks the tests (needs nvcc,
#            cuDNN and the packages of tools/setup.sh)
#   RESULTS  where the results go (tests/gpu/results)
#   PLANS    folder of plans that an earlier run chose on such a card: choosing takes a minute (none)
#   LOGS     folder that keeps the whole output of every phase and the plans (none)
#   SECONDS_IN_ALL  540; every phase has a cap of its own as well, and what is known is written after each phase
# Usage: tests/gpu/run.sh [right | speed]; both without an argument.
set -uo pipefail
part=${1:-both}
case $part in right | speed | both) ;; *)
  echo "gpu: $part is neither right nor speed" >&2
  exit 2
  ;;
esac
cd "$(dirname "$0")/../.." || exit 1
begin=$SECONDS
all=${SECONDS_IN_ALL:-540}
left() { echo $((all - (SECONDS - begin))); }

if ! nvidia-smi >/dev/null 2>&1; then
  echo "gpu: no NVIDIA driver answers here" >&2
  exit 1
fi
build=${BUILD:-}
if [ -z "$build" ] && [ -f build-portable.tar.xz ] && [ ! -x build-portable/bin/gm_kernel_tests ]; then
  python3 -c 'import tarfile; tarfile.open("build-portable.tar.xz").extractall()' || exit 1
fi
[ -n "$build" ] || { [ -x build-portable/bin/gm_kernel_tests ] && build=build-portable; } || build=build-cuda
if [ ! -x "$build/bin/gm_kernel_tests" ]; then
  major=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)
  cmake --preset release -B "$build" -DGM_CUDA=ON "-DGM_CUDA_ARCHS=$major-real" >/dev/null &&
    cmake --build "$build" --parallel "${GM_JOBS:-$(nproc)}" || exit 1
fi
bin=$build/bin

# cuDNN, cuBLAS and NVRTC: the toolkit's, and as Python packages carry them. nvJPEG may lie beside the programs.
libraries=$(python3 -c '
import glob, nvidia
print(":".join(sorted({f.rsplit("/", 1)[0] for p in nvidia.__path__ for f in glob.glob(p + "/**/*.so.*", recursive=True)})))
' 2>/dev/null)
export LD_LIBRARY_PATH=$(realpath "$bin"):${libraries:+$libraries:}/usr/local/cuda/lib64${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export PATH=$PATH:/usr/local/cuda/bin GM_REQUIRE_GPU=1

results=${RESULTS:-tests/gpu/results}
mkdir -p "$results"
work=$(mktemp -d)
query() { nvidia-smi --query-gpu="$1" --format=csv,noheader | head -1; }
device=$(query name)
export GM_DEVICE_NAME="$device"
file=$results/$(echo "$device" | tr ' /' '--')
[ $part = both ] || file=$file-$part
commit=${GM_COMMIT:-$(git rev-parse --short HEAD 2>/dev/null || echo unknown)}
printf '%s\n' "device=$device" "driver=$(query driver_version)" "memory=$(query memory.total)" \
  "clock_limits=$(query clocks.max.sm), $(query clocks.max.memory)" "power_limit=$(query power.limit)" \
  "commit=$commit" "build=$build" "processors=$(nproc)" >"$work/facts"

report() {
  python3 tests/gpu/report.py "$work" "$file" || echo "gpu: no report" >&2
  [ -z "${LOGS:-}" ] || { mkdir -p "$LOGS" && cp -r "$work"/{*.log,*.jsonl,plans} "$LOGS" 2>/dev/null; }
}
finish() {
  report
  echo "gpu: $file.json, $file.md"
  # 0 only when everything that ran was right.
  ! grep -vE ' 0$' "$work/phases" | grep -qE '^(tests|plans|feed|determinism|checks|tools|runs|jpegs|memcheck|racecheck|synccheck|initcheck) '
  local status=$?
  rm -rf "$work"
  exit $status
}
# phase NAME CAP COMMAND...: its output is NAME.log; ends in a line of $work/phases. Never ends the script.
phase() {
  local name=$1 cap=$2 start=$SECONDS status
  shift 2
  [ "$(left)" -lt "$cap" ] && cap=$(left)
  if [ "$cap" -lt 3 ]; then
    echo "$name 0 skipped" >>"$work/phases"
    return 1
  fi
  timeout -k 5 "$cap" "$@" >"$work/$name.log" 2>&1
  status=$?
  [ $status -eq 137 ] && status=124
  echo "$name $((SECONDS - start)) $status" >>"$work/phases"
  echo "gpu: $name: $([ $status -eq 0 ] && echo done || { [ $status -eq 124 ] && echo "cut off" || echo "status $status"; }) after $((SECONDS - start)) s"
  return $status
}
# Keeps the JSON lines of a phase's output.
lines() { grep -h '^{' "$work/$1.log" >>"$work/$2.jsonl" 2>/dev/null; }

# ---- Right or wrong. Nothing here is timed, so all of it runs at once, and PyTorch prepares its cases. The plans
# chosen meanwhile are those of a busy card: they have a folder of their own.
export GM_PLAN_CACHE=$work/plans-busy
# Plans of its own: whoever runs beside may fix a choice between two runs that are to be the same.
determinism() {
  local set=$work/set.h5 run
  local -x GM_PLAN_CACHE=$work/plans-alone
  "$bin/gm_data" synth --classes gz5 --count 512 --size 64 --quiet --out "$set" || return 1
  for precision in f32 bf16; do
    for run in a b; do
      "$bin/gm_train" models/effg0.yaml --data "$set" --device cuda --epochs 2 --set input.size=32 --quiet \
        --set train.precision=$precision --out "$work/$precision-$run" || return 1
    done
    cmp "$work/$precision-a/last.safetensors" "$work/$precision-b/last.safetensors" || return 1
    "$bin/gm_train" models/effg0.yaml --data "$set" --device cuda --epochs 1 --set input.size=32 --quiet \
      --set train.precision=$precision --set schedule.name=constant --out "$work/$precision-c" &&
      "$bin/gm_train" "$work/$precision-c/config.yaml" --device cuda --epochs 2 --quiet --out "$work/$precision-c" \
        --resume &&
      "$bin/gm_train" models/effg0.yaml --data "$set" --device cuda --epochs 2 --set input.size=32 --quiet \
        --set train.precision=$precision --set schedule.name=constant --out "$work/$precision-d" &&
      cmp "$work/$precision-c/last.safetensors" "$work/$precision-d/last.safetensors" || return 1
  done
  [ -n "$(ls "$GM_PLAN_CACHE")" ] || { echo "no file of plans was written"; return 1; }
  echo "same seed, same weights, bit for bit, in f32 and bf16; resumed as unbroken; plans kept in a file"
}
# gm_check NAME ARGUMENTS... against the CPU; a file of JSON lines each, for they run side by side.
check() {
  local name=$1
  shift
  "$bin/gm_check" "$@" --device cuda --json | sed -u "s/^{/{\"check\":\"$name\",/" >"$work/check-${name//[ ,]/_}.json"
  return "${PIPESTATUS[0]}"
}
# Runs its arguments, one command each, side by side; fails when one fails.
together() {
  local command pid pids=() bad=0
  for command in "$@"; do
    eval "$command" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || bad=1; done
  return $bad
}
# Losses of 100 steps agree within 1e-3 only under a recipe that does not amplify rounding. With effg0's own (AdamW,
# learning rate 3e-3) two instruction sets of one CPU, whose steps differ in the last digits alone, drift apart by 1e-4
# in 30 steps and by 0.02 in 100; with the paper's (Adam, 1e-4) they stay within 7e-7.
# A network of 40 blocks does the same to one step from initial weights: the CPU in f32 misses its own reference in
# double precision by 1e-3 and in bf16 its own f32 by 0.2. So the weights come from two short epochs. In bf16 a training
# step stays noise then (0.15 in layers between f32 and bf16 of one CPU): inference is compared, bf16 against bf16.
checks() {
  local v2s="models/effv2s_cbam.yaml --set model.classes=5 --set input.size=128 --batch 4 --weights $work/v2s"
  train_v2s() {
    "$bin/gm_data" synth --classes gz5 --count 512 --size 64 --quiet --out "$work/v2s.h5" &&
      "$bin/gm_train" models/effv2s_cbam.yaml --data "$work/v2s.h5" --device cuda --epochs 2 --batch 32 --quiet \
        --set input.size=64 --set model.classes=5 --out "$work/v2s"
  }
  together 'check "effg0 f32" models/effg0.yaml --set input.size=64 --batch 16' \
    'check "effg0 f32, 100 steps" models/effg0.yaml --set input.size=32 --set recipe=paper --batch 32 --mode infer \
       --steps 100' \
    'check "effg0 bf16" models/effg0.yaml --set input.size=64 --batch 16 --precision bf16 --against-precision bf16' \
    'check "effg3 f32" models/effg3.yaml --set input.size=64 --batch 4' \
    "train_v2s && together 'check \"effv2s_cbam f32\" $v2s' \
       'check \"effv2s_cbam bf16\" $v2s --mode infer --precision bf16 --against-precision bf16'"
}
# What users run with a trained network: the card's scores are the CPU's.
tools() {
  local set=$work/tools.h5 run=$work/tools
  "$bin/gm_data" synth --classes gz5 --count 256 --size 64 --quiet --out "$set" &&
    "$bin/gm_train" models/effg0.yaml --data "$set" --device cuda --epochs 4 --set input.size=64 --quiet --out "$run" ||
    return 1
  use_tools() { # DEVICE
    "$bin/gm_infer" "$set" --model "$run" --device "$1" --quiet --out "$work/plain-$1.csv" &&
      "$bin/gm_infer" "$set" --model "$run" --device "$1" --quiet --tta --out "$work/tta-$1.csv" &&
      "$bin/gm_infer" "$set" --model "$run" --device "$1" --quiet --mc-dropout 8 --out "$work/mc-$1.csv" &&
      "$bin/gm_eval" --model "$run" --data "$set" --device "$1" --quiet --out "$work/eval-$1" &&
      "$bin/gm_explain" "$set" --model "$run" --device "$1" --quiet --samples 4 --out "$work/explain-$1"
  }
  together 'use_tools cpu' 'use_tools cuda' || return 1
  "$bin/gm_infer" "$set" --model "$run" --device cuda --precision bf16 --quiet --out "$work/bf16-cuda.csv" &&
    cp "$work/plain-cpu.csv" "$work/bf16-cpu.csv" || return 1
  local how allowed bad=0
  for how in plain:1e-4 tta:1e-4 mc:1e-4 bf16:5e-2; do
    allowed=${how#*:} how=${how%:*}
    python3 tests/gpu/compare_scores.py $how "$work/$how-cpu.csv" "$work/$how-cuda.csv" $allowed || bad=1
  done
  return $bad
}
# Whole runs with what steps alone do not have: several batches an update, CutMix, class weights, the moving average,
# histograms; their losses are the CPU's. A search; the speed line of gm_eval; a batch that no card holds.
runs() {
  local set=$work/runs.h5 message
  "$bin/gm_data" synth --classes gz5 --count 512 --size 64 --quiet --out "$set" || return 1
  train_on() { # DEVICE
    "$bin/gm_train" models/effg0.yaml --data "$set" --device "$1" --epochs 2 --batch 32 --quiet --set input.size=32 \
      --set recipe=paper --set optimizer.accumulate=2 --set optimizer.average=0.9 --set train.cutmix=1 \
      --set train.class_weights=balanced --set train.board_epochs=1 --out "$work/runs-$1"
  }
  search() {
    "$bin/gm_search" run models/search_small.yaml --data "$set" --device cuda --set search.iterations=2 \
      --set search.train_steps=4 --set train.epochs=2 --set input.size=32 --out "$work/search" >"$work/search.log" 2>&1 ||
      { tail -n 3 "$work/search.log"; return 1; }
  }
  together 'train_on cpu' 'train_on cuda' search || return 1
  python3 - "$work"/runs-{cpu,cuda}/metrics.csv <<'PYTHON' || return 1
import csv, sys
cpu, cuda = (list(csv.DictReader(open(path))) for path in sys.argv[1:])
off = max(abs(float(b[c]) / float(a[c]) - 1) for a, b in zip(cpu, cuda, strict=True) for c in ("train_loss", "val_loss"))
print(f"losses of {len(cpu)} epochs differ by {off:.2g} at most, allowed 1e-3")
sys.exit(not off <= 1e-3)
PYTHON
  "$bin/gm_eval" --model "$work/runs-cuda" --data "$set" --device cuda --speed --out "$work/eval-speed" || return 1
  message=$("$bin/gm_bench" --model models/effv2s_cbam.yaml --set input.size=224 --batch 8192 --mode train \
    --device cuda --precision bf16 2>&1) && { echo "a batch of 8192 images was taken"; return 1; }
  echo "$message"
  [ "$(wc -l <<<"$message")" = 1 ]
}
# gm_infer on JPEG files of 424 px, with the card's decoder and without: how fast, and how far the scores are apart.
jpegs() {
  local set=$work/jpegs how
  "$bin/gm_data" synth --classes gz5 --count 1024 --size 424 --format jpg --quiet --out "$set" || return 1
  for how in card cpu; do
    "$bin/gm_infer" "$set" --model "$work/tools" --device cuda --batch 256 --decode $how --out "$work/jpegs-$how.csv" ||
      return 1
  done
  python3 tests/gpu/compare_scores.py jpegs "$work/jpegs-cpu.csv" "$work/jpegs-card.csv" 2e-2
}
# All ops on the card in PROCESSES processes; with a TOOL under that sanitizer: our own kernels, small shapes, no case
# twice.
ops_tests() { # PROCESSES [TOOL]
  local processes=$1 tool=${2:-} i each=()
  local run="$bin/gm_kernel_tests --gtest_filter='*cuda*:*Cuda*:ConvNarrow.An*:OpCards*:*.Results*:Expand*:OpDropout*:OpMix*:OpOptimizer*:OpPool*:OpSoftmaxXent*'"
  [ -z "$tool" ] || run="GM_SMALL_CASES=1 GM_OWN_KERNELS=1 compute-sanitizer --tool $tool --error-exitcode 9 $run"
  for ((i = 0; i < processes; ++i)); do
    each+=("GM_PLAN_CACHE=off GTEST_TOTAL_SHARDS=$processes GTEST_SHARD_INDEX=$i $run")
  done
  together "${each[@]}"
}
export -f determinism checks check together ops_tests tools runs jpegs
export bin work

# In two groups: the tests are thousands of short waits for the card, which each process with long work beside them
# makes ten times as long.
right() {
  local tool each group=()
  phase tests 140 bash -c 'ops_tests 3' &
  group+=($!)
  if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck synccheck initcheck racecheck; do
      phase "$tool" 140 bash -c "ops_tests 3 $tool" &
      group+=($!)
    done
  else
    echo "memcheck 0 missing" >>"$work/phases"
  fi
  wait "${group[@]}"
  report
  # Where plans are kept kernels of ours compete with the libraries' steps: either choice has to be right.
  # Not OpGradients: all gradients and one alone may be won by different kernels, which round differently.
  GM_PLAN_CACHE=$work/plans-ops phase plans 120 "$bin/gm_kernel_tests" \
    --gtest_filter='Ops/OpConformance*/conv_bn_act_cuda:*/fused_mbconv_cuda:*/channel_scale_conv2d_cuda' &
  group=($!)
  phase feed 60 "$bin/gm_unit_tests" --gtest_filter='DataAugment*:EngineFeed*:ToolsFeed*' &
  group+=($!)
  for each in determinism checks tools runs; do
    phase $each 120 bash -c $each &
    group+=($!)
  done
  wait "${group[@]}"
  cat "$work"/check-*.json >"$work/checks.jsonl" 2>/dev/null
  phase jpegs 40 bash -c jpegs  # alone: it is timed
  report
}
if [ -n "${GM_NO_PEERS:-}" ] || ! python3 -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
  peers=""
else
  peers=yes
fi
# PyTorch takes a minute to build, compile and warm up a case, so all of them begin at once, now, and wait for `quiet`.
v2s=models/effv2s_cbam.yaml:224 g3=models/effg3.yaml:96 g0=models/effg0.yaml:32
if [ -n "$peers" ] && [ $part != right ]; then
  TORCHINDUCTOR_COMPILE_THREADS=4 nice python3 tests/peers/torch_bench.py --when "$work/quiet" --limit 30 --seconds 1 \
    --total "$(left)" --out "$work/peers.jsonl" \
    --case $v2s:64:train:{compile-graphs,eager} $v2s:256:infer:{compile-graphs,eager} \
    $g3:256:{train,infer}:{compile-graphs,eager} $g3:1:latency:{compile-graphs,graphs} $g3:256:infer:graphs \
    $g0:256:train:{eager,graphs} >"$work/peers.log" 2>&1 &
  prepared=$!
fi
[ $part = speed ] || right
[ $part = right ] && finish

# ---- Speed: one thing at a time.
export GM_PLAN_CACHE=$work/plans
[ -z "${PLANS:-}" ] || cp -r "$PLANS" "$GM_PLAN_CACHE"
step() { # MODEL SIZE BATCH MODE [ARGUMENTS]
  local model=$1 size=$2 batch=$3 mode=$4
  shift 4
  "$bin/gm_bench" --model "models/$model.yaml" --set "input.size=$size" --batch "$batch" --mode "$mode" --device cuda \
    --precision bf16 --json "$@" | sed "s/^{/{\"config\":\"$model\",/"
}
models() {
  step effv2s_cbam 224 64 train
  step effg3 96 256 train
  step effg0 32 256 train
  step effg3 96 256 infer
  step effv2s_cbam 224 256 infer
  step effg3 96 1 infer
}
pipeline() { # gm_train with decoding and augmentation
  "$bin/gm_data" synth --classes gz5 --count 8192 --size 128 --quiet --out "$work/pipeline.h5" &&
    "$bin/gm_train" models/effg3.yaml --data "$work/pipeline.h5" --device cuda --epochs 2 --batch 256 --quiet \
      --set train.precision=bf16 --out "$work/pipeline" || return 1
  awk -F, 'NR == 3 { printf "{\"images_per_second\": %s, \"data_wait\": %s}\n", $7, $8 }' "$work/pipeline/metrics.csv"
}
export -f step models pipeline

if [ -n "$peers" ]; then
  quiet() { while [ ! -e "$work/quiet.prepared" ] && kill -0 $prepared 2>/dev/null; do sleep 0.2; done; }
  # Waits for a process that is not this phase's own child.
  timed() { touch "$work/quiet" && tail --pid=$prepared -f /dev/null; }
  export -f quiet timed
  export prepared
  phase prepare 60 bash -c quiet
fi
phase models 170 bash -c models  # most of it makes plans, up to six compiled ones for a larger filter, and times them
lines models models
report
if [ -n "$peers" ]; then
  phase peers 100 bash -c timed
  kill $prepared 2>/dev/null
  report
fi
ops() { # BATCH MODE
  "$bin/gm_bench" --ops models/effg3.yaml --ops models/effv2s_cbam.yaml --device cuda --precision bf16 --batch "$1" \
    --mode "$2" --seconds 0.02 --json
}
depthwise() { # alone, as cuDNN has it: not fused with the batch norm behind it
  "$bin/gm_bench" --ops models/effv2s_cbam.yaml --ops models/effg3.yaml --device cuda --precision bf16 --batch 64 \
    --seconds 0.02 --json --without all --op depthwise_conv2d
}
from_host() { # 8-bit images in the host's memory, against the rate of uploads
  "$bin/gm_bench" --model models/effg3.yaml --from-host 424 --batch 256 --device cuda --precision bf16 --seconds 3 --json
}
# What the hardware counters say of each of our kernels at each shape: a CSV row a counter.
profile() {
  local of=gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum each
  for each in dram__throughput lts__throughput gpu__compute_memory_throughput; do
    of+=,$each.avg.pct_of_peak_sustained_elapsed
  done
  for each in l1tex__throughput sm__inst_issued sm__warps_active sm__pipe_tensor_cycles_active; do
    of+=,$each.avg.pct_of_peak_sustained_active
  done
  for each in long_scoreboard short_scoreboard barrier math_pipe_throttle lg_throttle mio_throttle not_selected wait; do
    of+=,smsp__average_warps_issue_stalled_${each}_per_issue_active.ratio
  done
  ncu --clock-control none --filter-mode per-launch-config --launch-count 1 --kernel-name 'regex:_kernel$' --csv \
    --metrics "$of,launch__registers_per_thread,launch__waves_per_multiprocessor" "$bin/gm_bench" --ops "$1" \
    --device cuda --precision bf16 --batch "$2" --mode train --seconds 0.001
}
export -f ops depthwise from_host profile
phase ops 60 bash -c 'ops 64 train'
lines ops ops
phase depthwise 15 bash -c depthwise
lines depthwise ops
[ -z "$peers" ] || phase cudnn 40 python3 tests/peers/torch_bench.py --depthwise "$work/depthwise.log" --seconds 0.02 \
  --out "$work/cudnn.jsonl"
report
phase from_host 25 bash -c from_host
lines from_host from_host
report
phase pipeline 40 bash -c pipeline
lines pipeline pipeline
report
phase roofline 40 "$bin/gm_bench" --roofline models/effv2s_cbam.yaml --device cuda --precision bf16 --batch 64
phase roofline-g3 30 "$bin/gm_bench" --roofline models/effg3.yaml --device cuda --precision bf16 --batch 256
phase ops-1 20 bash -c 'ops 1 infer'
lines ops-1 ops
phase ops-256 45 bash -c 'ops 256 infer; ops 256 train'
lines ops-256 ops
report

command -v ncu >/dev/null &&
  for each in models/effv2s_cbam.yaml:64 models/effg3.yaml:256; do
    phase "profile-$(basename "${each%.*}")" 60 bash -c "profile ${each%:*} ${each#*:}"
  done
[ -z "$peers" ] || phase autotuned 300 python3 tests/peers/torch_bench.py --variants compile --seconds 1 --limit 100 \
  --total "$(left)" --out "$work/peers.jsonl"
finish

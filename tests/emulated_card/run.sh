#!/usr/bin/env bash
# What a CUDA build does on the emulated card, a few minutes: every op against its reference; networks, training,
# predictions and a search against the CPU. BUILD is a folder configured with GM_EMULATED_CARD. The last line is
# "N passed, N failed, N skipped".
# Usage: tests/emulated_card/run.sh [BUILD]
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
build=${1:-build-emulated}
bin=$build/bin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. tests/counts.sh

# on_card COMMAND...; the card is not there for the shell and its other commands.
on_card() { LD_PRELOAD=$(realpath "$build/lib/libgm_emulated_card.so") GM_REQUIRE_GPU=1 "$@"; }
expect() { # WHAT COMMAND...
  local what=$1
  shift
  if "$@" >"$work/log" 2>&1; then
    pass
  else
    tail -n 5 "$work/log"
    fail "on the emulated card: $what"
  fi
}

counted "$bin/gm_emulated_card_tests" --gtest_brief=1
# Our kernels in all their places; the networks below have them beside cuBLASLt.
GM_SMALL_CASES=1 GM_OWN_KERNELS=1 GM_PLAN_CACHE=off counted on_card tests/sharded.sh "$bin/gm_kernel_tests" --gtest_brief=1 \
  --gtest_filter='Ops/OpConformance*_cuda:*Cuda*:ConvNarrow.An*:*.Results*:Expand*:OpDropout*:OpMix*:OpOptimizer*:OpPool*:OpSoftmaxXent*'

# Every block of the families, a training step and inference, beside the CPU.
check() { expect "gm_check $*" on_card "$bin/gm_check" "$@" --device cuda; }
export GM_PLAN_CACHE=off
check models/effg0.yaml --set input.size=32 --batch 4
check models/effg0.yaml --set input.size=32 --batch 4 --precision bf16 --against-precision bf16 --mode infer
check models/effg3.yaml --set input.size=32 --batch 2 --mode infer
check models/effv2s_cbam.yaml --set input.size=32 --batch 1 --mode infer --precision bf16 --against-precision bf16

# Copies, kernels and captured steps on two streams. What the host does not wait for is late in one run and early in
# the other; in a third plans are chosen by the clock, kernels of ours among the candidates.
"$bin/gm_data" synth --classes gz5 --count 32 --size 48 --quiet --out "$work/set.h5" || exit 1
train() { # NAME ARGUMENTS...
  local name=$1
  shift
  on_card "$bin/gm_train" models/effg0.yaml --data "${data:-$work/set.h5}" --device "${device:-cuda}" --quiet \
    --epochs "${epochs:-2}" --batch 8 --set input.size=32 --set recipe=paper "$@" --out "$work/$name"
}
same_weights() { cmp "$work/$1/last.safetensors" "$work/$2/last.safetensors"; }
close() { # TOLERANCE COLUMNS TABLE TABLE: the columns of these names, within TOLERANCE of the value or of 1
  python3 - "$@" <<'PYTHON'
import csv, re, sys
tolerance, columns, *paths = sys.argv[1:]
one, other = (list(csv.DictReader(open(path))) for path in paths)
off = [abs(float(a[c]) - float(b[c])) / max(1, abs(float(a[c])))
       for a, b in zip(one, other, strict=True) for c in a if re.fullmatch(columns, c)]
print(f"{len(off)} numbers differ by {max(off):.2g} at most, allowed {tolerance}")
sys.exit(not max(off) <= float(tolerance))
PYTHON
}
close_losses() { close 1e-3 '.*_loss' "$work/$1/metrics.csv" "$work/$2/metrics.csv"; }
on_cpu() { "$bin/gm_train" "$work/$1/config.yaml" --device cpu --quiet --out "$work/$2"; }
expect "training" train late
GM_EMULATED_ORDER=others expect "training, streams in another order" train early
expect "the same weights in every order of streams" same_weights late early
GM_EMULATED_CAPTURE=0 expect "training, captures refused" train plain
expect "the same weights without captured steps" same_weights late plain
expect "training on the CPU" on_cpu late cpu
expect "the CPU's losses" close_losses cpu late
GM_EMULATED_CARDS=2 device=cuda:1 expect "training on the second card" train second
expect "the same weights on the second card" same_weights late second
epochs=1 expect "one epoch of training" train resumed
expect "the next epoch, resumed" train resumed --resume
expect "the same weights when resumed" same_weights late resumed
expect "training with averaged weights, batches that share an update, activations computed twice" train averaged \
  --set optimizer.average=0.9 --set optimizer.accumulate=2 --set optimizer.clip_norm=1 --set train.recompute=true
expect "the same on the CPU" on_cpu averaged averaged-cpu
expect "the CPU's losses with them" close_losses averaged-cpu averaged
# Soft labels: of each galaxy 0.6 of the votes for its class, 0.1 for each of the others.
"$bin/gm_data" synth --classes gz5 --count 32 --size 48 --quiet --out "$work/voted" &&
  awk -F, -v OFS=, 'NR == 1 { print "file_loc,v0,v1,v2,v3,v4"; next }
    { row = $2; for (k = 0; k < 5; ++k) row = row OFS (k == $3 ? 0.6 : 0.1); print row }' \
    "$work/voted/labels.csv" >"$work/voted/votes.csv" || exit 1
data=$work/voted/votes.csv expect "training from shares of votes" train voted \
  --set 'model.class_names=[v0,v1,v2,v3,v4]' --set train.mixup=0.4 --set train.class_weights=balanced
expect "the same on the CPU" on_cpu voted voted-cpu
expect "the CPU's losses with them" close_losses voted-cpu voted
GM_PLAN_CACHE=$work/plans GM_EMULATED_CUDNN=describe expect "training in bf16, plans by the clock" train timed \
  --set train.precision=bf16

# A trained network, in batches of which the last is not full.
infer() { # NAME ARGUMENTS...: on the card and on the CPU
  local table=$work/$1
  shift
  set -- "$bin/gm_infer" --model "$work/late" "$work/set.h5" --batch 12 --quiet "$@"
  on_card "$@" --device cuda --out "$table-card.csv" && "$@" --device cpu --out "$table-cpu.csv"
}
same_predictions() { close "$1" 'p_.*|entropy|mutual_information' "$work/$2-cpu.csv" "$work/$2-card.csv"; }
expect "predictions" infer plain
expect "the CPU's predictions" same_predictions 1e-5 plain
expect "predictions in bf16" infer bf16 --precision bf16
expect "the CPU's predictions in bf16" same_predictions 2e-3 bf16
expect "predictions with dropout" infer dropout --mc-dropout 2
expect "the CPU's predictions with dropout" same_predictions 1e-5 dropout

# A kernel that fails in the last batch: one error, the rows before it kept, and the rest when resumed.
infer_on_card() { on_card "$bin/gm_infer" --model "$work/late" "$work/set.h5" --batch 12 --quiet --device cuda "$@"; }
kernels=$(GM_EMULATED_TRACE=1 infer_on_card --out "$work/traced.csv" 2>&1 | grep -c '^emulated card: .*, grid ')
broken() {
  local said
  said=$(GM_EMULATED_FAILING_KERNEL=$((kernels - 2)) infer_on_card --out "$work/broken.csv" 2>&1) && return 1
  echo "$said"
  said=$(grep -v '^emulated card: ' <<<"$said")
  [ "$(wc -l <<<"$said")" = 1 ] && [[ $said == *"illegal memory access"*"first 24 of 32 images"* ]]
}
expect "a kernel that fails" broken
expect "the rest of the predictions" infer_on_card --out "$work/broken.csv" --resume
expect "the same predictions" cmp "$work/plain-card.csv" "$work/broken.csv"

# A search: networks that come and go, their shared weights, the controller.
search() { # NAME DEVICE
  "$bin/gm_search" run models/search_small.yaml --data "$work/set.h5" --device "$2" --quiet --set input.size=16 \
    --set data.val_fraction=0.5 --set train.batch=8 --set train.epochs=1 --set search.iterations=2 \
    --set search.train_steps=1 --set search.children=2 --set search.score_batches=1 --set search.finalists=1 \
    --out "$work/$1"
}
same_scores() { # but for their seconds
  diff <(sed 's/,"seconds":[^,}]*//' "$work/$1/journal.jsonl") <(sed 's/,"seconds":[^,}]*//' "$work/$2/journal.jsonl")
}
expect "a search" on_card search search-card cuda
expect "the search on the CPU" search search-cpu cpu
expect "the CPU's networks and scores" same_scores search-cpu search-card

# One clear line where something runs out, and no folder that looks like a run.
one_line() { # NAME TEXT: what `train NAME` says
  local said
  said=$(train "$1" 2>&1) && { echo "no error"; return 1; }
  echo "$said"
  [ "$(wc -l <<<"$said")" = 1 ] && [[ $said == *"$2"* ]] && [ ! -e "$work/$1/config.yaml" ]
}
GM_EMULATED_MEMORY=66 expect "a card that is too small" one_line small "out of GPU memory"
GM_EMULATED_PAGE_LOCKED=0 expect "no page-locked memory" one_line unlocked "page-locked memory: out of memory"
GM_EMULATED_CARDS=0 expect "no card" one_line none "--device cuda"
device=cuda:1 expect "no second card" one_line absent "this machine has 1 CUDA device"
GM_EMULATED_CAPABILITY=75 expect "a card without code" one_line old "has architecture sm_75; this build has code for"
GM_EMULATED_CARDS=2 GM_EMULATED_MEMORY=4096,32 device=cuda:1 expect "a second card that is too small" \
  one_line narrow "cuda:1 is too full: the libraries' workspace takes 64.0 MiB, 32.0 MiB of 32.0 MiB are free"

# --device auto takes the first card, or the CPU where the build has no code for it, and says so.
auto() { # WHAT: what it says of its device
  local said
  said=$(on_card "$bin/gm_infer" --model "$work/late" "$work/set.h5" --batch 12 --out "$work/auto.csv" 2>&1)
  echo "$said"
  [[ $said == *"device: "$1* ]] && close 1e-5 'p_.*' "$work/plain-cpu.csv" "$work/auto.csv"
}
GM_EMULATED_CARDS=2 GM_EMULATED_CAPABILITY=80,75 expect "--device auto" auto "Emulated sm_80 (cuda:0"
GM_EMULATED_CARDS=2 GM_EMULATED_CAPABILITY=75,80 expect "--device auto, no code for the first card" \
  auto "cpu (*) - cuda:0 (Emulated sm_75) has architecture sm_75"
expect "a file of plans" test -n "$(ls "$work/plans" 2>/dev/null)"

report

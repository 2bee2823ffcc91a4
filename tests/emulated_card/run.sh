#!/usr/bin/env bash
# What a CUDA build does on the emulated card, a few minutes: every op against its reference, networks against the CPU,
# training twice. BUILD is a folder configured with GM_EMULATED_CARD. The last line is "N passed, N failed, N skipped".
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
  --gtest_filter='Ops/OpConformance*_cuda:*Cuda*:ConvNarrow.An*:*.Results*:Expand*:OpDropout*:OpMix*:OpOptimizer*:OpSoftmaxXent*'

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
  on_card "$bin/gm_train" models/effg0.yaml --data "$work/set.h5" --device cuda --epochs 2 --batch 8 --quiet \
    --set input.size=32 --set recipe=paper "$@" --out "$work/$name"
}
same_weights() { cmp "$work/$1/last.safetensors" "$work/$2/last.safetensors"; }
close_losses() { # RUN RUN: losses of all epochs within 1e-3
  python3 - "$work/$1/metrics.csv" "$work/$2/metrics.csv" <<'PYTHON'
import csv, sys
one, other = (list(csv.DictReader(open(path))) for path in sys.argv[1:])
off = max(abs(float(b[c]) / float(a[c]) - 1) for a, b in zip(one, other, strict=True) for c in ("train_loss", "val_loss"))
print(f"losses differ by {off:.2g} at most, allowed 1e-3")
sys.exit(not off <= 1e-3)
PYTHON
}
expect "training" train late
GM_EMULATED_ORDER=others expect "training, streams in another order" train early
expect "the same weights in every order of streams" same_weights late early
GM_EMULATED_CAPTURE=0 expect "training, captures refused" train plain
expect "the same weights without captured steps" same_weights late plain
expect "training on the CPU" "$bin/gm_train" "$work/late/config.yaml" --device cpu --quiet --out "$work/cpu"
expect "the CPU's losses" close_losses cpu late
GM_PLAN_CACHE=$work/plans GM_EMULATED_CUDNN=describe expect "training in bf16, plans by the clock" train timed \
  --set train.precision=bf16
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
expect "a file of plans" test -n "$(ls "$work/plans" 2>/dev/null)"

report

#!/usr/bin/env python3
"""Training speed on the CPU: this engine against PyTorch, in turn on the same pinned cores.

    tests/peers/cpu_speed.py --build build --model models/effg0.yaml --size 64 --batch 128 [--data FOLDER]

Each round times a PyTorch training step (channels-last and default layout, Adam, no data loading) and the engine's,
then the next round; ratios are per round, so a machine that slows down hits both. With --data the engine's whole
loop (decode, augment, train) is timed too, while PyTorch is still spared its data loading: the figure to quote is
conservative. Prints JSON lines and a summary. Needs PyTorch and PyYAML.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

parser = argparse.ArgumentParser()
parser.add_argument("--build", default="build")
parser.add_argument("--model", default="models/effg0.yaml")
parser.add_argument("--size", type=int, default=64)
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--seconds", type=float, default=5)
parser.add_argument("--mode", choices=["train", "infer"], default="train")
parser.add_argument("--data", help="data set for the whole loop")
parser.add_argument("--cores", default="0,1")
parser.add_argument("--torch-only", action="store_true", help=argparse.SUPPRESS)
args = parser.parse_args()
cores = [int(c) for c in args.cores.split(",")]


def torch_rate():
    import torch

    from torch_network import Network

    torch.set_num_threads(len(cores))
    torch.manual_seed(0)
    best = 0
    for layout in (torch.channels_last, torch.contiguous_format):
        net = Network(args.model).to(memory_format=layout)
        net.train(args.mode == "train")
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
        x = (torch.rand(args.batch, 3, args.size, args.size) * 255).to(memory_format=layout)
        y = torch.arange(args.batch) % net.predictions.out_features

        def step():
            if args.mode == "infer":
                with torch.no_grad():
                    return net(x)
            optimizer.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()

        step()
        times = []
        end = time.monotonic() + args.seconds / 2
        while time.monotonic() < end or len(times) < 3:
            start = time.monotonic()
            step()
            times.append(time.monotonic() - start)
        best = max(best, args.batch / statistics.median(times))
    return best


if args.torch_only:
    os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
    print(torch_rate())
    sys.exit()

os.sched_setaffinity(0, cores)
environment = dict(os.environ, OMP_NUM_THREADS=str(len(cores)), OMP_PROC_BIND="close", OMP_PLACES="cores")
settings = ["--set", f"input.size={args.size}"]
ratios, loop_ratios = [], []
for number in range(args.rounds):
    command = [sys.executable, os.path.abspath(__file__), "--torch-only", "--model", args.model, "--size",
               str(args.size), "--batch", str(args.batch), "--seconds", str(args.seconds), "--mode", args.mode,
               "--cores", args.cores]
    peer = float(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    command = [args.build + "/bin/gm_bench", "--model", args.model, *settings, "--batch", str(args.batch), "--mode",
               args.mode, "--seconds", str(args.seconds), "--device", "cpu", "--json"]
    ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["images_per_second"]
    row = {"round": number, "torch_img_s": round(peer, 1), "engine_img_s": round(ours, 1), "ratio": round(ours / peer, 3)}
    ratios.append(ours / peer)
    if args.data:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([args.build + "/bin/gm_train", args.model, "--data", args.data, "--out", folder + "/run",
                            "--epochs", "2", "--batch", str(args.batch), "--device", "cpu", "--quiet", *settings],
                           check=True)
            with open(folder + "/run/metrics.csv") as file:
                loop = float(file.read().split("\n")[2].split(",")[6])  # second epoch: images are in the cache
        row.update(engine_loop_img_s=loop, loop_ratio=round(loop / peer, 3))
        loop_ratios.append(loop / peer)
    print(json.dumps(row), flush=True)
print(f"{args.mode}, {args.size} px, batch {args.batch}, {len(cores)} cores: engine / PyTorch = "
      f"{statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f})")
if loop_ratios:
    print(f"whole loop with augmentation / PyTorch step alone = {statistics.median(loop_ratios):.2f} "
          f"(from {min(loop_ratios):.2f} to {max(loop_ratios):.2f})")

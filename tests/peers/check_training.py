#!/usr/bin/env python3
"""Does training compute what PyTorch computes? The same weights, images and recipe, step by step.

    tests/peers/check_training.py --build build --data FOLDER [--model models/effv2s_cbam.yaml] [--size 64]

Takes four images of every class, three for training and one for validation, so that an epoch is one step on the same
batch in any order. gm_train writes fresh weights (learning rate 0), from which both then train, PyTorch in float64,
with everything random switched off, a fixed zoom and crop that reach beyond the border as augmentation, and much weight
decay and epsilon so that they show; what is compared are the averaged weights. The learning rate is small: at larger
ones rounding errors grow with every step, Adam dividing by the gradient's size. Compares each step's losses and, at the
end, what became of the weights; and statistically the initialisers. Exits 1 when one is off. Needs PyTorch, PyYAML,
NumPy and Pillow.
"""
import argparse
import csv
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from PIL import Image

from torch_network import Network, read_safetensors
from torch_train import Part, Peer, initialise, read_pixels
from torch_transform import Transform

parser = argparse.ArgumentParser()
parser.add_argument("--build", default="build")
parser.add_argument("--data", required=True, help="folder with labels.csv")
parser.add_argument("--model", default="models/effv2s_cbam.yaml")
parser.add_argument("--size", type=int, default=64)
parser.add_argument("--steps", type=int, default=3)
args = parser.parse_args()

failed = False


def verdict(ok):
    global failed
    failed |= not ok
    return "" if ok else "  WRONG"


def write_small_set(folder):
    with open(os.path.join(args.data, "labels.csv")) as file:
        table = list(csv.DictReader(file))
    by_class = {}
    for row, entry in enumerate(table):
        if len(by_class.setdefault(int(entry["label"]), [])) < 4:
            by_class[int(entry["label"])].append(row)
    rows = sorted(row for some in by_class.values() for row in some)
    with open(folder + "/labels.csv", "w") as file:
        file.write("id_str,file_loc,label\n")
        for row, pixels in zip(rows, read_pixels(args.data, rows)):
            Image.fromarray(pixels).save(f"{folder}/{row}.png")  # lossless: two decoders of JPEG differ
            file.write(f"{row},{row}.png,{table[row]['label']}\n")
    return len(by_class)


def engine(folder, out, classes, *more):
    fixed = ["augment.rotation_deg=0", "augment.shear_deg=0", "augment.zoom=[1.2, 1.2]", "augment.crop=[230, 230]",
             "augment.flip_x=false", "augment.flip_y=false", "augment.shift_px=0", "augment.brightness=0",
             "augment.contrast=0", "augment.saturation=0", "augment.hue=0", "model.dropout=0",
             "model.stochastic_depth=0", "optimizer.weight_decay=5", "optimizer.epsilon=1.0e-4",
             "optimizer.average=0.15", "data.val_fraction=0.25", f"model.classes={classes}",
             f"train.batch={3 * classes}", f"input.size={args.size}", *more]
    subprocess.run([args.build + "/bin/gm_train", args.model, "--data", folder, "--out", out, "--device", "cpu",
                    "--quiet", *(word for setting in fixed for word in ("--set", setting))], check=True)


with tempfile.TemporaryDirectory() as folder:
    start, run = folder + "/start", folder + "/run"
    classes = write_small_set(folder)
    engine(folder, start, classes, "train.epochs=1", "optimizer.lr=0")
    engine(folder, run, classes, f"train.epochs={args.steps}", "optimizer.lr=1.0e-5",
           f"train.init={start}/best.safetensors")
    fresh, trained = (read_safetensors(f"{path}/last.safetensors") for path in (start, run))
    with open(run + "/metrics.csv") as file:
        ours = list(csv.DictReader(file))
    peer = Peer(run + "/config.yaml", torch.float64)
    peer.net.load(fresh)
    untrained = Network(run + "/config.yaml")
    transform = Transform(peer.config["augment"], args.size, torch.float64)
    train, val = (Part(run, folder, split) for split in ("train", "val"))

x = torch.stack([transform.training(p, np.random.default_rng(0)) for p in train.pixels])
val_x = torch.stack([transform.evaluation(p) for p in val.pixels])
warmup = round(peer.config["schedule"].get("warmup_epochs", 0))
print("step  loss: engine   PyTorch  error    validation: engine   PyTorch  error")
first = None
for number, row in enumerate(ours):
    losses = [peer.step(number, args.steps, warmup, x, train.labels)[0], peer.evaluate(val_x, val.labels, 64)[0]]
    first = first or losses
    errors = [abs(float(row[key]) - loss) for key, loss in zip(("train_loss", "val_loss"), losses)]
    near = all(e < 5e-5 + 0.01 * abs(l - f) for e, l, f in zip(errors, losses, first))  # 1 % of what training changed
    print(f"{number:>4}  {row['train_loss']:>12}  {losses[0]:.6f}  {errors[0]:.0e}  {row['val_loss']:>18}  "
          f"{losses[1]:.6f}  {errors[1]:.0e}{verdict(near)}")
change = error = 0
with peer.averaged():
    for name, (tensor, to_engine, _) in peer.net.named_weights().items():
        if "moving" in name:
            continue
        moved = to_engine(tensor.detach()) - torch.tensor(fresh[name])
        change += moved.square().sum().item()
        error += (torch.tensor(trained[name]) - torch.tensor(fresh[name]) - moved).square().sum().item()
error = (error / change) ** 0.5
print(f"what training changed in the weights differs by {error:.1e} (relative L2){verdict(error < 0.05)}")

torch.manual_seed(0)
initialise(untrained)
worst = 0
for name, (tensor, to_engine, _) in untrained.named_weights().items():
    if "moving" not in name:
        a, b = torch.tensor(fresh[name]).double(), to_engine(tensor.detach()).double()
        for moment in (lambda t: t.mean(), lambda t: t.square().mean().sqrt()):
            size = b.square().mean().sqrt().item() or 1
            worst = max(worst, abs(moment(a) - moment(b)).item() / size * b.numel() ** 0.5)
print(f"initialisers: means and deviations of all tensors differ by {worst:.1f} standard errors at most"
      f"{verdict(worst < 6)}")
sys.exit(failed)

#!/usr/bin/env python3
"""Trains the PyTorch twin of a run's network with the run's recipe, to lay the two training curves side by side.

    tests/peers/torch_train.py --run runs/v2s --out runs/v2s-torch [--data PATH] [--seed 0] [--threads 1]

Takes config.yaml and split.csv of a run folder of gm_train: the same network (torch_network.py), initialisers,
optimizer, schedule, losses, batch-norm momentum, average of the weights, split and augmentation (torch_transform.py)
with random numbers of its own. Prints and writes OUT/metrics.csv, a line for each epoch, and OUT/state.pt, from which
the same command goes on when it was stopped. check_training.py shows that both compute the same. Needs PyTorch, PyYAML,
NumPy and, for the data, h5py (Galaxy10-layout .h5) or Pillow (catalogs and folders).
"""
import argparse
import contextlib
import csv
import math
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from torch_network import Network
from torch_transform import Transform

HEADER = "epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,images_per_second"


def read_pixels(path, rows):
    """Images of these rows as (H, W, 3) uint8 arrays."""
    if path.endswith((".h5", ".hdf5")):
        import h5py
        with h5py.File(path) as file:
            return [file["images"][row] for row in rows]
    from PIL import Image
    catalog = path if path.endswith(".csv") else os.path.join(path, "labels.csv")
    with open(catalog) as file:
        table = list(csv.DictReader(file))
    names = [os.path.join(os.path.dirname(catalog), table[row]["file_loc"]) for row in rows]
    return [np.asarray(Image.open(name).convert("RGB")) for name in names]


class Part:
    """The training or the validation images of a run."""

    def __init__(self, run, data, split):
        with open(os.path.join(run, "split.csv")) as file:
            rows = [r for r in csv.DictReader(file) if r["split"] == split]
        self.pixels = read_pixels(data, [int(r["row"]) for r in rows])
        self.labels = torch.tensor([int(r["label"]) for r in rows])


def learning_rate(schedule, lr, step, warmup, total):
    if step < warmup:
        return lr * (step + 1) / warmup
    name = schedule.get("name", "constant")
    if name == "keras_decay":
        return lr / (1 + schedule.get("decay", 0) * step)
    if name == "cosine":
        final, t = schedule.get("final_fraction", 0.01), min(1, (step - warmup) / max(1, total - warmup))
        return lr * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * t)))
    return lr


def initialise(net):
    """Keras's initialisers, which are the engine's: variance scaling by the fan that each layer names."""
    for name, (tensor, engine, _) in net.named_weights().items():
        if not name.endswith("/kernel"):
            continue  # biases 0, batch norm 1 and 0: below, and PyTorch's own
        shape, area = engine(tensor).shape, math.prod(tensor.shape[2:])  # convolutions (out, k, k, in), dense (out, in)
        if name == "predictions/kernel":
            nn.init.uniform_(tensor, -1 / math.sqrt(shape[0]), 1 / math.sqrt(shape[0]))
        elif name == "hidden/kernel":
            nn.init.xavier_uniform_(tensor)
        else:
            he_normal = name.startswith("cbam_")
            fan = shape[-1] * area if he_normal else area if "dwconv" in name else shape[0] * area
            sigma = math.sqrt(2 / fan) / 0.87962566103423978  # truncation at two sigma narrows it again
            nn.init.trunc_normal_(tensor, 0, sigma, -2 * sigma, 2 * sigma)
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)


class BiasedVariance:
    """Running variances as in Keras: PyTorch's update counts n / (n - 1) times the batch's variance."""

    def __init__(self, net):
        self.norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        for module in self.norms:
            module.register_forward_hook(self._count)

    @staticmethod
    def _count(module, inputs, output):
        module.seen = inputs[0].numel() // inputs[0].shape[1]

    def remember(self):
        self.old = [m.running_var * (1 - m.momentum) for m in self.norms]

    def correct(self):
        """After the backward pass, which checks that nothing of the forward pass was changed."""
        for module, old in zip(self.norms, self.old):
            module.running_var.sub_(old).mul_((module.seen - 1) / module.seen).add_(old)


class Peer:
    """Network and optimizer of a configuration."""

    def __init__(self, config_path, dtype=torch.float32):
        with open(config_path) as file:
            self.config = yaml.safe_load(file)
        self.settings = self.config.get("train", {})
        self.optimizer_config = {"name": "adamw", "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-7,
                                 "epsilon_hat": True, "weight_decay": 0, **self.config.get("optimizer", {})}
        for key in ("lr", "epsilon", "weight_decay"):
            self.optimizer_config[key] = float(self.optimizer_config[key])  # PyYAML reads 1e-5 as text
        kept_out = [("optimizer", "accumulate", 1), ("optimizer", "clip_norm", 0), ("train", "l2", {}),
                    ("train", "mixup", 0), ("train", "cutmix", 0), ("train", "class_weights", "none"),
                    ("train", "freeze", []), ("train", "freeze_bn", False)]
        for section, key, off in kept_out:
            if self.config.get(section, {}).get(key, off) != off:
                raise NotImplementedError(f"{section}.{key}")
        self.net = Network(config_path).to(dtype=dtype, memory_format=torch.channels_last)
        unbiased = self.config["model"]["batch_norm"].get("unbiased", False)
        self.variance = None if unbiased else BiasedVariance(self.net)
        o = self.optimizer_config
        kernels = [t for name, (t, _, _) in self.net.named_weights().items() if name.endswith("/kernel")]
        others = [p for p in self.net.parameters() if all(p is not k for k in kernels)]
        if o["name"] not in ("adam", "adamw"):
            raise NotImplementedError("optimizer " + o["name"])
        kind = torch.optim.AdamW if o["name"] == "adamw" else torch.optim.Adam
        self.optimizer = kind([{"params": kernels, "weight_decay": o["weight_decay"]},
                               {"params": others, "weight_decay": 0}], betas=(o["beta1"], o["beta2"]))
        self.average = None  # of the parameters, once there was a step

    def step(self, number, total, warmup, x, y):
        """Optimizer step `number`, from 0. Returns loss, correct answers and learning rate."""
        o = self.optimizer_config
        lr = learning_rate(self.config.get("schedule", {}), o["lr"], number, warmup, total)
        # PyTorch adds epsilon to sqrt(v / bc2), Keras to sqrt(v): the same for epsilon / sqrt(bc2).
        correction = math.sqrt(1 - o["beta2"] ** (number + 1)) if o["epsilon_hat"] else 1
        for group in self.optimizer.param_groups:
            group["lr"], group["eps"] = lr, o["epsilon"] / correction
        self.net.train()
        if o.get("average") and self.average is None:
            self.average = [p.detach().clone() for p in self.net.parameters()]
        if self.variance:
            self.variance.remember()
        self.optimizer.zero_grad(set_to_none=True)
        logits = self.net(x)
        loss = F.cross_entropy(logits, y, label_smoothing=self.settings.get("label_smoothing", 0)) + self.penalty()
        loss.backward()
        if self.variance:
            self.variance.correct()
        self.optimizer.step()
        if self.average:
            keep = min(o["average"], (1 + number) / (10 + number))
            with torch.no_grad():
                for mean, parameter in zip(self.average, self.net.parameters()):
                    mean.mul_(keep).add_(parameter, alpha=1 - keep)
        return loss.item(), (logits.argmax(1) == y).sum().item(), lr

    def penalty(self):
        return self.net.l2 * self.net.hidden.weight.square().sum() if self.net.hidden else 0

    @contextlib.contextmanager
    def averaged(self):
        """The network with the average for weights, where there is one."""
        def swap():
            with torch.no_grad():
                for mean, parameter in zip(self.average or [], self.net.parameters()):
                    kept = parameter.clone()
                    parameter.copy_(mean)
                    mean.copy_(kept)
        swap()
        try:
            yield self.net
        finally:
            swap()

    @torch.no_grad()
    def evaluate(self, x, y, batch):
        """Mean loss without smoothing, and accuracy, of the averaged weights."""
        self.net.eval()
        with self.averaged():
            logits = torch.cat([self.net(part) for part in x.split(batch)])
            penalty = self.penalty()
        return (F.cross_entropy(logits, y) + penalty).item(), (logits.argmax(1) == y).double().mean().item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", required=True, help="run folder of gm_train: its config.yaml and split.csv are used")
    parser.add_argument("--out", required=True)
    parser.add_argument("--data", help="default: data.path of the configuration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="0: all")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    peer = Peer(args.run + "/config.yaml")
    initialise(peer.net)
    settings, config = peer.settings, peer.config
    data = args.data or config["data"]["path"]
    train, val = (Part(args.run, data, split) for split in ("train", "val"))
    transform = Transform(config.get("augment"), peer.net.size)
    epochs, batch, patience = settings.get("epochs", 30), settings.get("batch", 32), settings.get("patience", 0)
    batches = len(train.labels) // batch  # the last partial batch is dropped
    total, warmup = batches * epochs, round(config.get("schedule", {}).get("warmup_epochs", 0) * batches)
    as_input = lambda images: torch.stack(images).contiguous(memory_format=torch.channels_last)
    val_x = as_input([transform.evaluation(p) for p in val.pixels])

    os.makedirs(args.out, exist_ok=True)
    state, lines = args.out + "/state.pt", []
    if os.path.exists(state):
        kept = torch.load(state)
        peer.net.load_state_dict(kept["net"])
        peer.optimizer.load_state_dict(kept["optimizer"])
        lines, peer.average = kept["lines"], kept["average"]
    print("\n".join([HEADER] + lines), flush=True)
    for epoch in range(len(lines), epochs):
        rng = np.random.default_rng([args.seed, epoch])
        torch.manual_seed(args.seed + 1000003 * (epoch + 1))  # dropout: a resumed run draws what an unbroken one does
        order = rng.permutation(len(train.labels))
        loss_sum = correct = 0
        start = time.monotonic()
        for i in range(batches):
            rows = order[i * batch:(i + 1) * batch]
            x = as_input([transform.training(train.pixels[row], rng) for row in rows])
            loss, right, lr = peer.step(epoch * batches + i, total, warmup, x, train.labels[rows])
            if not math.isfinite(loss):
                sys.exit(f"the loss became {loss} in epoch {epoch + 1}")
            loss_sum, correct = loss_sum + loss, correct + right
        rate = batches * batch / (time.monotonic() - start)
        val_loss, val_accuracy = peer.evaluate(val_x, val.labels, batch)
        lines.append(f"{epoch + 1},{loss_sum / batches:.6f},{correct / (batches * batch):.6f},{val_loss:.6f},"
                     f"{val_accuracy:.6f},{lr:.8g},{rate:.1f}")
        print(lines[-1], flush=True)
        torch.save({"net": peer.net.state_dict(), "optimizer": peer.optimizer.state_dict(), "average": peer.average,
                    "lines": lines}, state + ".partial")
        os.replace(state + ".partial", state)
        with open(args.out + "/metrics.csv", "w") as file:
            file.write("\n".join([HEADER] + lines) + "\n")
        losses = [float(line.split(",")[3]) for line in lines]
        if patience and len(losses) - 1 - int(np.argmin(losses)) >= patience:
            break
    table = [[float(v) for v in line.split(",")] for line in lines]
    best = min(table, key=lambda row: row[3])
    print(f"last epoch {len(table)}: validation accuracy {table[-1][4]:.4f}; lowest validation loss in epoch "
          f"{best[0]:.0f}: accuracy {best[4]:.4f}")


if __name__ == "__main__":
    main()

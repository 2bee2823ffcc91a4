#!/usr/bin/env python3
"""Golden outputs of PyTorch for the networks tests/golden/*.yaml: tests/golden/<name>.safetensors.

    tests/golden/make_torch_golden.py

Random weights, random batch-norm statistics, random pixels and labels; float64 throughout, stored as float32. A file
holds `pixels`, `labels`, `weights/<name>`, `logits_eval`, `logits_train` (batch statistics), `loss_train`,
`gradients/<name>` of that loss and `updated/<name>`, the running statistics after that step. Needs PyTorch, PyYAML and
NumPy.
"""
import pathlib
import sys

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))
from torch_network import Network  # noqa: E402
from tensor_file import write_tensors  # noqa: E402

BATCH = 4


def random_value(name, shape, rng):
    if name.endswith(("/gamma", "/moving_variance")):
        return rng.uniform(0.5, 1.5, shape)
    if name.endswith("/kernel"):
        fan_in = np.prod(shape[:2] if len(shape) == 3 else shape[1:])  # depthwise (k, k, C), others (out, ..., in)
        gain = 2 if name.startswith(("stem", "block", "top")) and len(shape) > 2 else 0.5  # gates far from saturation
        return rng.normal(0, np.sqrt(gain / fan_in), shape)
    return rng.uniform(-0.3, 0.3, shape)


def single(tensor):
    return tensor.detach().numpy().astype(np.float32)


for config in sorted(HERE.glob("*.yaml")):
    rng = np.random.default_rng(sum(map(ord, config.stem)) + 7)
    net = Network(config).double()
    names = net.named_weights()
    tensors = {}
    for name, (tensor, ours, _) in names.items():
        tensors["weights/" + name] = random_value(name, tuple(ours(tensor).shape), rng).astype(np.float32)
    net.load({name: tensors["weights/" + name] for name in names})
    pixels = rng.integers(0, 256, (BATCH, net.size, net.size, 3), dtype=np.uint8)
    labels = rng.integers(0, net.predictions.out_features, BATCH)
    x, y = torch.tensor(pixels).permute(0, 3, 1, 2).double(), torch.tensor(labels)
    tensors["pixels"], tensors["labels"] = pixels, labels.astype(np.int32)

    tensors["logits_eval"] = single(net.eval()(x))
    logits = net.train()(x)
    loss = net.loss(logits, y)
    loss.backward()
    tensors["logits_train"], tensors["loss_train"] = single(logits), single(loss.reshape(1))
    for name, (tensor, ours, _) in names.items():
        if name.endswith(("/moving_mean", "/moving_variance")):
            tensors["updated/" + name] = single(tensor)
        else:
            tensors["gradients/" + name] = single(ours(tensor.grad))
    path = config.with_suffix(".safetensors")
    write_tensors(path, tensors, {"made_with": f"PyTorch {torch.__version__}, float64"})
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")

#!/usr/bin/env python3
"""Golden explanations of PyTorch's autograd in float64: tests/golden/explain/<name>.safetensors.

    tests/golden/make_explain_golden.py

Weights and pixels are those of tests/golden/<name>.safetensors (make_torch_golden.py). A file holds `classes` (2), the
`gradient` of each image's logit with respect to its pixels (2, S, S, 3) and `gradcam/<layer>` (2, h, w). Needs PyTorch,
PyYAML and NumPy.
"""
import json
import pathlib
import struct
import sys

import numpy as np
import torch

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))
from torch_explain import explain  # noqa: E402
from torch_network import Network  # noqa: E402
from tensor_file import write_tensors  # noqa: E402

KINDS = {"F32": "<f4", "U8": "u1", "I32": "<i4"}


def read(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    header.pop("__metadata__", None)
    return {name: np.frombuffer(data[t["data_offsets"][0]:t["data_offsets"][1]], KINDS[t["dtype"]]).reshape(t["shape"])
            for name, t in header.items()}


(HERE / "explain").mkdir(exist_ok=True)
for name in ("cbam_keras", "cbam_authors"):
    given = read(HERE / f"{name}.safetensors")
    net = Network(HERE / f"{name}.yaml").load(
        {k[len("weights/"):]: v for k, v in given.items() if k.startswith("weights/")}).double().eval()
    pixels = given["pixels"][:2]
    tensors = {"classes": np.array([5, 0], np.int32)}
    for layer in ("cbam_spatial_scale", "top_activation", "block2b_add"):
        _, gradient, cam = explain(net, pixels, tensors["classes"].astype(np.int64), layer)
        tensors["gradient"] = gradient.astype(np.float32)
        tensors["gradcam/" + layer] = cam.astype(np.float32)
    path = HERE / "explain" / f"{name}.safetensors"
    write_tensors(path, tensors, {"made_with": f"PyTorch {torch.__version__}, float64"})
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")

#!/usr/bin/env python3
"""Weights and logits of torchvision's EfficientNetV2: tests/golden/import/torchvision_v2.safetensors.

    tests/golden/make_torchvision_golden.py            # the narrow network of import/narrow_v2.yaml
    tests/golden/make_torchvision_golden.py FILE       # efficientnet_v2_s at 224 px, for a one-off comparison

Random weights and batch-norm statistics; logits in float64. The file holds the state dict under torchvision's own
names, `pixels` (N, H, W, 3) in 0..255 and `logits`. Needs PyTorch, torchvision >= 0.13 and NumPy.
"""
import pathlib
import sys
from functools import partial

import numpy as np
import torch
from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig, efficientnet_v2_s

from tensor_file import write_tensors

full = len(sys.argv) > 1
torch.manual_seed(5)
rng = np.random.default_rng(5)
size = 224 if full else 45
if full:
    net = efficientnet_v2_s()
else:
    net = EfficientNet(
        [
            FusedMBConvConfig(1, 3, 1, 8, 8, 1),
            FusedMBConvConfig(4, 3, 2, 8, 16, 2),
            MBConvConfig(4, 3, 2, 16, 24, 2),
        ],
        dropout=0.2, num_classes=5, last_channel=32, norm_layer=partial(torch.nn.BatchNorm2d, eps=1e-3),
    )
for module in net.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        for tensor in (module.weight.data, module.running_var):
            tensor.uniform_(0.5, 1.5)
        for tensor in (module.bias.data, module.running_mean):
            tensor.uniform_(-0.3, 0.3)
    elif getattr(module, "bias", None) is not None:
        module.bias.data.uniform_(-0.3, 0.3)
net = net.double().eval()
pixels = rng.integers(0, 256, (2, size, size, 3), dtype=np.uint8)
# torchvision's preset: to [0, 1], then ImageNet's mean and deviation.
x = torch.tensor(pixels).permute(0, 3, 1, 2).double() / 255
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
state = {k: v.float() if v.is_floating_point() else v for k, v in net.state_dict().items()}
net.load_state_dict(state)  # the rounded weights
with torch.no_grad():
    logits = net(x).numpy().astype(np.float32)
tensors = {k: v.numpy() for k, v in state.items()} | {"pixels": pixels, "logits": logits}
path = pathlib.Path(sys.argv[1]) if full else pathlib.Path(__file__).resolve().parent / "import/torchvision_v2.safetensors"
write_tensors(path, tensors, {"format": "pt"})
print(path, logits.std())

"""The networks of models/*.yaml as plain PyTorch modules: the peer that speed and accuracy are compared with.

Reads the same YAML as the engine (PyYAML: the format's reference reader). Padding is TensorFlow SAME for `same`.
"""
import math

import torch
import torch.nn.functional as F
import yaml
from torch import nn

ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU, "relu6": nn.ReLU6}


def round_filters(filters):
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding: at stride 2 the extra row and column come last."""

    def forward(self, x):
        pads = []
        for size in (x.shape[3], x.shape[2]):
            k, s = self.kernel_size[0], self.stride[0]
            total = max(0, (math.ceil(size / s) - 1) * s + k - size)
            pads += [total // 2, total - total // 2]
        if pads[0] == pads[1] and pads[2] == pads[3]:
            return F.conv2d(x, self.weight, self.bias, self.stride, (pads[2], pads[0]), 1, self.groups)
        return F.conv2d(F.pad(x, pads), self.weight, self.bias, self.stride, 0, 1, self.groups)


def conv_bn(cin, cout, kernel, stride, groups, act, bn):
    conv = SameConv if bn["same"] else nn.Conv2d
    padding = 0 if bn["same"] else kernel // 2
    layers = [
        conv(cin, cout, kernel, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(cout, eps=bn["epsilon"], momentum=1 - bn["momentum"]),
    ]
    if act:
        layers.append(act(inplace=True))
    return nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    def __init__(self, channels, squeeze, act):
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeeze, 1)
        self.act = act(inplace=True)
        self.expand = nn.Conv2d(squeeze, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.expand(self.act(self.reduce(x.mean((2, 3), keepdim=True)))))


class Block(nn.Module):
    def __init__(self, spec, cin, cout, stride, act, bn, drop):
        super().__init__()
        mid = cin * spec["expand"]
        kernel = spec["kernel"]
        layers = []
        if spec["block"] == "mbconv":
            if spec["expand"] != 1:
                layers.append(conv_bn(cin, mid, 1, 1, 1, act, bn))
            layers.append(conv_bn(mid, mid, kernel, stride, mid, act, bn))
            if spec["se"] > 0:
                layers.append(SqueezeExcite(mid, max(1, int(cin * spec["se"])), act))
            layers.append(conv_bn(mid, cout, 1, 1, 1, None, bn))
        elif spec["expand"] != 1:
            layers.append(conv_bn(cin, mid, kernel, stride, 1, act, bn))
            layers.append(conv_bn(mid, cout, 1, 1, 1, None, bn))
        else:
            layers.append(conv_bn(cin, cout, kernel, stride, 1, act, bn))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and cin == cout
        self.drop = drop

    def forward(self, x):
        y = self.layers(x)
        if not self.residual:
            return y
        if self.training and self.drop > 0:
            keep = 1 - self.drop
            y = y * (torch.rand(len(y), 1, 1, 1, device=y.device) < keep).to(y.dtype) / keep
        return x + y


class Network(nn.Module):
    """Pixels 0..255, (N, 3, H, W), to logits."""

    def __init__(self, path, classes=None):
        super().__init__()
        with open(path) as file:
            config = yaml.safe_load(file)
        model, scaling = config["model"], config["input"].get("scaling", {})
        self.size = config["input"]["size"]
        for name in ("mean", "std"):
            value = scaling.get(name, 0 if name == "mean" else 255)
            value = value if isinstance(value, list) else [value] * 3
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        bn = dict(model["batch_norm"], same=model.get("padding", "same") == "same")
        act = ACTIVATIONS[model["activation"]]
        scale = model.get("scaling", {})
        phi = scale.get("phi", 0)
        depth, width = scale.get("alpha", 1) ** phi, scale.get("beta", 1) ** phi
        filters = lambda n: n if width == 1 else round_filters(n * width)

        stem = model["stem"]
        cin = filters(stem["filters"])
        layers = [conv_bn(3, cin, stem["kernel"], stem["stride"], 1, act, bn)]
        stages = [dict({"se": model.get("se", 0) if s["block"] == "mbconv" else 0}, **s) for s in model["stages"]]
        repeats = [math.ceil(s["layers"] * depth - 1e-9) for s in stages]
        at = 0
        for s, count in zip(stages, repeats):
            cout = filters(s["filters"])
            for layer in range(count):
                drop = model.get("stochastic_depth", 0) * at / sum(repeats)
                layers.append(Block(s, cin, cout, s["stride"] if layer == 0 else 1, act, bn, drop))
                cin, at = cout, at + 1
        if "head" in model:
            head = filters(model["head"]["filters"])
            layers.append(conv_bn(cin, head, 1, 1, 1, act, bn))
            cin = head
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(model.get("dropout", 0))
        self.predictions = nn.Linear(cin, classes or model["classes"])

    def forward(self, x):
        x = self.features((x - self.mean) / self.std)
        return self.predictions(self.dropout(x.mean((2, 3))))

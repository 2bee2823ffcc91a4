#!/usr/bin/env python3
"""Golden training steps of the full-size networks: tests/golden/frameworks/<framework>.safetensors.

    tests/golden/make_framework_golden.py keras          # EfficientNetV2S + CBAM: models/effv2s_cbam.yaml
    tests/golden/make_framework_golden.py torchvision    # efficientnet_v2_s: models/effv2s.yaml
    tests/golden/make_framework_golden.py timm           # tf_efficientnetv2_s: models/effv2s.yaml

Twenty million weights and as many gradients do not fit a small file, so weights and pixels are drawn from a generator
that the test repeats (`bits`), under the framework's own names and in its own layouts, and of every gradient the file
holds its norm and 64 projections on random signs (`project`). The mapping of names and layouts is then the engine's
importer, which the test judges with it. Everything stored is computed in float64. Dropout and stochastic depth are off.

A file holds `names` in its metadata, those of all weights and running statistics, and in that order: `draws`, centre
and half-width of the distribution of each weight; `statistics`, all running statistics in one; and for each size
`<size>/norms` and `<size>/projections` of each weight's gradient and of each running statistic after the step. Then
`<size>/labels`, `<size>/loss`, `<size>/logits_eval`, `<size>/logits_train`, and `<size>/mixed`: how far the framework's
own mixed precision with bfloat16 is from all that: logits in inference, in training, median and worst gradient.

The script also prints how far the framework's own float32 and bfloat16 are from its float64: the floor under the
tolerances of the test. Needs NumPy and Keras 3 with TensorFlow, or PyTorch with torchvision or timm.
"""
import pathlib
import re
import sys

import numpy as np

from tensor_file import write_tensors

CLASSES, PROJECTIONS = 10, 64
BATCHES = {224: 2, 161: 3}  # size: batch; 161 is odd before every stride
HERE = pathlib.Path(__file__).resolve().parent


def bits(name, count):
    """64 random bits per element: splitmix64 whose state starts at the FNV-1a hash of the name."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    z = np.uint64(state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def draw(name, shape, centre, half_width):
    """Uniform in centre +- half_width, rounded to float32. The product has 48 bits: exact in float64 everywhere."""
    steps = (bits(name, int(np.prod(shape))) >> np.uint64(40)).astype(np.int64) - 2**23
    return (np.float64(centre) + steps * 2.0**-23 * np.float64(half_width)).astype(np.float32).reshape(shape)


def draw_pixels(size):
    """Noise of one pixel and of 32: the mean of a picture, and so what is left of it at the end, is its own."""
    n = BATCHES[size]
    fine = (bits(f"pixels {size}", n * size * size * 3) >> np.uint64(56)).reshape(n, size, size, 3)
    cells = (size + 31) // 32
    coarse = (bits(f"cells {size}", n * cells * cells * 3) >> np.uint64(56)).reshape(n, cells, cells, 3)
    coarse = coarse.repeat(32, 1).repeat(32, 2)[:, :size, :size]
    return ((fine + np.uint64(3) * coarse) >> np.uint64(2)).astype(np.uint8)


def project(name, values):
    """Sums of the elements with random signs: bit k of an element's bits is its sign in projection k.

    The square of a projection of a difference has the difference's squared norm as its expectation, whatever the
    difference is, so the root mean square over K = 64 of them estimates the L2 error without storing the tensor, with
    a relative standard error of at most 1/sqrt(2 K) = 9 %.
    """
    values, sums = values.reshape(-1).astype(np.float64), np.zeros(PROJECTIONS)
    signs = bits("signs " + name, values.size)
    for at in range(0, values.size, 2**18):
        chunk = signs[at:at + 2**18].view(np.uint8).reshape(-1, 8)
        sums += values[at:at + 2**18] @ (1.0 - 2.0 * np.unpackbits(chunk, axis=1, bitorder="little"))
    return sums


class Torch:
    """Model of torchvision or timm; bfloat16 is automatic mixed precision. Names are those of the state dictionary."""

    def __init__(self, framework, dtype):
        import torch
        import torchvision
        self.torch, self.mixed = torch, dtype == "bfloat16"
        if framework == "torchvision":
            self.made_with = f"torchvision {torchvision.__version__}, PyTorch {torch.__version__}"
            self.net = torchvision.models.efficientnet_v2_s(num_classes=CLASSES, stochastic_depth_prob=0)
            self.net.classifier[0].p = 0.0  # dropout
            mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of its preset, for pixels in 0..1
        else:
            import timm
            self.made_with = f"timm {timm.__version__}, PyTorch {torch.__version__}"
            self.net = timm.create_model("tf_efficientnetv2_s", num_classes=CLASSES, drop_rate=0, drop_path_rate=0)
            mean, std = self.net.default_cfg["mean"], self.net.default_cfg["std"]
        self.dtype = torch.float64 if dtype == "float64" else torch.float32
        self.net = self.net.to(self.dtype)
        self.mean, self.std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (mean, std))

    def tensors(self):
        return {k: v for k, v in self.net.state_dict().items() if v.ndim}  # without num_batches_tracked

    def shapes(self):
        return {k: tuple(v.shape) for k, v in self.tensors().items()}

    def load(self, values):
        self.net.load_state_dict({k: self.torch.tensor(v) for k, v in values.items()}, strict=False)

    def forward(self, pixels):
        x = self.torch.tensor(pixels).permute(0, 3, 1, 2).double() / 255
        with self.torch.autocast("cpu", self.torch.bfloat16, enabled=self.mixed):
            return self.net(((x - self.mean) / self.std).to(self.dtype))

    def evaluate(self, pixels):
        self.net.eval()
        with self.torch.no_grad():
            return self.forward(pixels).double().numpy()

    def step(self, pixels, labels):
        self.net.train().zero_grad()
        logits = self.forward(pixels)
        loss = self.torch.nn.functional.cross_entropy(logits.to(self.dtype), self.torch.tensor(labels, dtype=self.torch.long))
        loss.backward()
        results = {k: v.double().numpy().copy() for k, v in self.tensors().items() if is_state(k)}
        results |= {k: v.grad.double().numpy().copy() for k, v in self.net.named_parameters()}
        return logits.detach().double().numpy(), loss.item(), results


class Keras:
    """EfficientNetV2S of keras.applications with CBAM on its last map; bfloat16 is Keras's mixed precision. Names are
    layer/weight."""

    def __init__(self, framework, dtype):
        import keras
        import tensorflow
        self.keras, self.tf = keras, tensorflow
        self.dtype = "float64" if dtype == "float64" else "float32"
        self.made_with = f"Keras {keras.__version__}, TensorFlow {tensorflow.__version__}"
        keras.config.set_floatx(self.dtype)
        keras.config.set_dtype_policy("mixed_bfloat16" if dtype == "bfloat16" else dtype)
        layers, ops = keras.layers, keras.ops
        features = keras.applications.EfficientNetV2S(include_top=False, weights=None, input_shape=(None, None, 3))
        for layer in features.layers:
            if isinstance(layer, layers.Dropout):
                layer.rate = 0.0  # stochastic depth
        # Convolutional block attention (Woo et al. 2018) as Keras users write it: reduction 8, biases, no batch norm.
        x = features.output
        channels = x.shape[-1]
        squeeze = layers.Dense(channels // 8, activation="relu", name="cbam_mlp_reduce")
        excite = layers.Dense(channels, name="cbam_mlp_expand")
        pooled = (layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x))
        gate = layers.Activation("sigmoid")(layers.Add()([excite(squeeze(p)) for p in pooled]))
        x = layers.Multiply()([x, layers.Reshape((1, 1, channels))(gate)])
        maps = layers.Concatenate()([ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)])
        spatial = layers.Conv2D(1, 7, padding="same", use_bias=False, activation="sigmoid", name="cbam_spatial_conv")
        x = layers.GlobalAveragePooling2D()(layers.Multiply()([x, spatial(maps)]))
        self.net = keras.Model(features.input, layers.Dense(CLASSES, name="predictions")(x))
        assert self.net.count_params() == 20_755_308, self.net.count_params()

    def shapes(self):
        return {w.path: tuple(w.shape) for w in self.net.weights}

    def load(self, values):
        for w in self.net.weights:
            w.assign(values[w.path])

    def evaluate(self, pixels):
        return np.asarray(self.net(pixels.astype(self.dtype), training=False)).astype(np.float64)

    def step(self, pixels, labels):
        with self.tf.GradientTape() as tape:
            logits = self.net(pixels.astype(self.dtype), training=True)
            loss = self.keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
                labels, self.keras.ops.cast(logits, self.dtype))
        weights = self.net.trainable_weights
        results = {w.path: np.asarray(w) for w in self.net.weights if is_state(w.path)}
        results |= {w.path: np.asarray(g) for w, g in zip(weights, tape.gradient(loss, [w.value for w in weights]))}
        return np.asarray(logits).astype(np.float64), float(loss), results


# The scale of what is added to a shortcut. Around one, the deepest blocks of an untrained network amplify the rounding
# of the first ones a thousandfold; in trained networks it is small.
RESIDUAL_BRANCH = re.compile(
    r"block\d[b-z]_project_bn/gamma"  # Keras
    r"|features\.(1\.[1-9]\d*\.block\.0|[23]\.[1-9]\d*\.block\.1|[456]\.[1-9]\d*\.block\.3)\.1\.weight"  # torchvision
    r"|blocks\.(0\.[1-9]\d*\.bn1|[12]\.[1-9]\d*\.bn2|[345]\.[1-9]\d*\.bn3)\.weight"  # timm
)


def is_state(name):
    return name.endswith(("running_mean", "running_var", "moving_mean", "moving_variance"))


def weight_draws(shapes):
    """(centre, half-width) of every weight."""
    draws = {}
    for name, shape in shapes.items():
        if is_state(name):
            continue
        if RESIDUAL_BRANCH.fullmatch(name):
            draws[name] = 0.2, 0.1
        elif name.endswith("gamma") or name.endswith("weight") and len(shape) == 1:
            draws[name] = 1.0, 0.5
        elif len(shape) == 1:
            draws[name] = 0.0, 0.3
        else:
            keras_depthwise, keras = "dwconv2" in name, name.endswith("kernel")
            fan_in = np.prod(shape[:2] if keras_depthwise else shape[:-1] if keras else shape[1:])
            gain = 0.5 if name.startswith(("cbam", "classifier", "predictions")) else 2  # gates far from saturation
            draws[name] = 0.0, np.sqrt(3 * gain / fan_in)
    return {k: tuple(float(np.float32(v)) for v in pair) for k, pair in draws.items()}


def draw_values(net, draws, shapes):
    """Weights, and running statistics around those of one batch, channel by channel: freely drawn ones would let the
    signal grow or fade from layer to layer of the inference network. Variances are 5 % larger on average, because
    wrong means and the mean of 1/v enlarge it by about as much. Rounded to bfloat16, in which they are stored."""
    values = {n: np.zeros(s, np.float32) if is_state(n) else draw(n, s, *draws[n]) for n, s in shapes.items()}
    net.load(values)
    updated = net.step(draw_pixels(224), draw_labels(224))[2]
    for name, shape in shapes.items():
        if not is_state(name):
            continue
        batch = 10 * updated[name]  # the new value's share is a tenth in all of these networks
        if name.endswith(("var", "variance")):
            value = batch * draw(name, shape, 1.05, 0.25)
        else:
            variance = name.replace("running_mean", "running_var").replace("moving_mean", "moving_variance")
            value = batch + np.sqrt(10 * updated[variance]) * draw(name, shape, 0, 0.25)
        values[name] = widened(half(value))
    return values


def half(values):
    """The bits of bfloat16, rounded."""
    return ((values.astype(np.float32).view(np.uint32) + np.uint32(0x8000)) >> np.uint32(16)).astype(np.uint16)


def widened(bits16):
    return (bits16.astype(np.uint32) << np.uint32(16)).view(np.float32)


def draw_labels(size):
    return (bits(f"labels {size}", BATCHES[size]) % np.uint64(CLASSES)).astype(np.int32)


def relative(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def main(framework):
    make = Keras if framework == "keras" else Torch
    net = make(framework, "float64")
    shapes = net.shapes()
    draws = weight_draws(shapes)
    values = draw_values(net, draws, shapes)
    statistics = np.concatenate([half(values[n]) for n in shapes if is_state(n)])
    tensors, reference = {"draws": np.array(list(draws.values())), "statistics": statistics}, {}
    for size in BATCHES:
        pixels, labels = draw_pixels(size), draw_labels(size)
        net.load(values)
        evaluated = net.evaluate(pixels)
        logits, loss, results = reference[size] = net.step(pixels, labels)
        reference[size] += (evaluated,)
        tensors |= {
            f"{size}/labels": labels, f"{size}/logits_eval": evaluated, f"{size}/logits_train": logits,
            f"{size}/loss": np.array([loss]), f"{size}/norms": np.array([np.linalg.norm(results[n]) for n in shapes]),
            f"{size}/projections": np.stack([project(n, results[n]) for n in shapes]),
        }
    for dtype in ("float32", "bfloat16"):
        net = make(framework, dtype)
        for size in BATCHES:
            pixels, labels = draw_pixels(size), draw_labels(size)
            net.load(values)
            evaluated = net.evaluate(pixels)
            logits, loss, results = net.step(pixels, labels)
            want = reference[size]
            every = np.sqrt(sum(np.sum(want[2][n]**2) for n in shapes if not is_state(n)))
            nonzero = [n for n in shapes if not is_state(n) and np.linalg.norm(want[2][n]) > 1e-9 * every]
            errors = sorted((relative(results[n], want[2][n]), n) for n in nonzero)
            zeros = [np.linalg.norm(results[n]) / every for n in shapes if not is_state(n) and n not in nonzero]
            states = max(relative(results[n], want[2][n]) for n in shapes if is_state(n))
            print(f"{framework} {dtype} {size}: logits {relative(evaluated, want[3]):.1e} in inference, "
                  f"{relative(logits, want[0]):.1e} in training; statistics {states:.1e}; gradients median "
                  f"{errors[len(errors) // 2][0]:.1e}, worst {errors[-1][0]:.1e} ({errors[-1][1]}); {len(zeros)} "
                  f"gradients that are zero reach {max(zeros, default=0):.1e} of all", flush=True)
            if dtype == "bfloat16":
                tensors[f"{size}/mixed"] = np.array([relative(evaluated, want[3]), relative(logits, want[0]),
                                                     errors[len(errors) // 2][0], errors[-1][0]])
    tensors = {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in tensors.items()}
    path = HERE / "frameworks" / f"{framework}.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, tensors, {"made_with": net.made_with + ", float64", "names": "\n".join(shapes)})
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


main(sys.argv[1])

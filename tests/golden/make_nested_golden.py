#!/usr/bin/env python3
"""A Keras model around a nested backbone: tests/golden/import/nested_keras2*, nested_keras3*.

    tests/golden/make_nested_golden.py        # in an environment with Keras 2.15, then in one with Keras 3.5

As transfer learning is written: augmentation and a Rescaling of its own in front, a narrow EfficientNetV2 without top
as one layer, CBAM, pooling, a hidden layer, a classifier. In Keras 2's file CBAM is made of layers that Keras named,
in Keras 3's it is a layer of its own with 1x1 convolutions. nested_keras*.keras is what model.save wrote, deflated;
its model.weights.h5 is what model.save_weights writes. Neither version notes names of layers there; from 3.6 on Keras
does. nested_keras*.safetensors holds `pixels` and `logits`, computed in float64. nested_v2.yaml describes the network.
"""
import pathlib
import tempfile
import zipfile

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from keras.src.applications.efficientnet_v2 import EfficientNetV2

from narrow_keras import stage
from tensor_file import write_tensors

HERE = pathlib.Path(__file__).resolve().parent / "import"
SIZE, CLASSES, HIDDEN, WIDTH = 33, 5, 12, 0.0125  # Keras fixes the top convolution at 1280 * WIDTH filters
VERSION = int(keras.__version__[0])


def backbone():
    return EfficientNetV2(
        width_coefficient=WIDTH, depth_coefficient=1.0, default_size=SIZE, weights=None, include_top=False,
        input_shape=(SIZE, SIZE, 3),
        blocks_args=[stage(WIDTH, 1, 1, 8, 8, 1, 1, 0), stage(WIDTH, 0, 3, 8, 8, 2, 2, 0.25)],
        **{"model_name" if VERSION == 2 else "name": "narrow"})


def pooled(x, axis, kind):
    return getattr(tf, "reduce_" + kind)(x, axis=axis, keepdims=True)


def cbam_of_layers(x):
    reduce, expand = layers.Dense(x.shape[-1] // 4, activation="relu"), layers.Dense(x.shape[-1])
    branches = [expand(reduce(layers.Lambda(pooled, arguments={"axis": (1, 2), "kind": kind})(x)))
                for kind in ("mean", "max")]
    x = layers.Multiply()([x, layers.Activation("sigmoid")(layers.Add()(branches))])
    maps = [layers.Lambda(pooled, arguments={"axis": 3, "kind": kind})(x) for kind in ("mean", "max")]
    gate = layers.Conv2D(1, 7, padding="same", activation="sigmoid", use_bias=False)(layers.Concatenate()(maps))
    return layers.Multiply()([x, gate])


class Cbam(layers.Layer):
    def build(self, shape):
        self.squeeze = layers.Conv2D(shape[-1] // 4, 1, activation="relu")
        self.excite = layers.Conv2D(shape[-1], 1)
        self.spatial = layers.Conv2D(1, 7, padding="same", activation="sigmoid", use_bias=False)
        self.squeeze.build((None, 1, 1, shape[-1]))
        self.excite.build((None, 1, 1, shape[-1] // 4))
        self.spatial.build((*shape[:-1], 2))

    def call(self, x):
        branches = [self.excite(self.squeeze(pooled(x, (1, 2), kind))) for kind in ("mean", "max")]
        x = x * tf.sigmoid(branches[0] + branches[1])
        return x * self.spatial(tf.concat([pooled(x, 3, kind) for kind in ("mean", "max")], 3))


def network(augment):
    x = pixels = layers.Input((SIZE, SIZE, 3))
    if augment:
        x = keras.Sequential([layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)])(x)
    x = backbone()(layers.Rescaling([0.5, 0.75, 1.25], offset=[3.0, 0.0, -8.0])(x))
    x = layers.GlobalAveragePooling2D()((cbam_of_layers if VERSION == 2 else Cbam())(x))
    x = layers.Dropout(0.4)(layers.Dense(HIDDEN, activation="relu", name="features")(x))
    return keras.Model(pixels, layers.Dense(CLASSES, name="galaxy_class")(x))


def random_weight(name, shape, rng):
    """Rounded to eight bits of mantissa, so that the file deflates."""
    if name in ("gamma", "moving_variance"):
        values = rng.uniform(0.5, 1.5, shape)
    elif "kernel" in name:
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[:3] if shape[-1] == 1 else shape[:-1])), shape)
    else:
        values = rng.uniform(-0.3, 0.3, shape)
    return (values.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32)


def variables(net):
    return [w for w in net.weights if "seed" not in w.name and "state" not in w.name]


def deflate(source, target):
    with zipfile.ZipFile(source) as stored, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for name in stored.namelist():
            out.writestr(zipfile.ZipInfo(name), stored.read(name), zipfile.ZIP_DEFLATED)


rng = np.random.default_rng(23)
net = network(augment=True)
for w in variables(net):
    w.assign(random_weight(w.name.split(":")[0].split("/")[-1], w.shape, rng))
target = HERE / f"nested_keras{VERSION}.keras"
with tempfile.TemporaryDirectory() as folder:
    net.save(folder + "/net.keras")
    deflate(folder + "/net.keras", target)

keras.backend.set_floatx("float64")
(keras.mixed_precision.set_global_policy if VERSION == 2 else keras.config.set_dtype_policy)("float64")
exact = network(augment=False)  # Keras 2 rotates no float64
for to, w in zip(variables(exact), variables(net)):
    to.assign(np.asarray(w))
pixels = rng.integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8) // np.uint8([[[[1]]], [[[4]]]])  # bright, dark
logits = np.asarray(exact(pixels.astype(np.float64), training=False)).astype(np.float32)
write_tensors(target.with_suffix(".safetensors"), {"pixels": pixels, "logits": logits})
print(keras.__version__, "logits", logits, "float32 differs by",
      np.abs(np.asarray(net(pixels.astype(np.float32), training=False)) - logits).max())

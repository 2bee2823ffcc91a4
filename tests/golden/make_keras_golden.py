#!/usr/bin/env python3
"""Weight files and logits of a narrow Keras EfficientNetV2: tests/golden/import/keras_v2*.

    tests/golden/make_keras_golden.py

The same random weights in both of Keras's HDF5 formats: keras_v2.h5 (legacy, one group per layer) and
keras_v2.weights.h5 (Keras 3). keras_v2.safetensors holds `pixels` and `logits`, computed in float64.
Needs Keras 3 with a backend, h5py and NumPy. narrow_v2.yaml describes the network.
"""
import pathlib
import tempfile

import h5py
import keras
import numpy as np
from keras.src.applications.efficientnet_v2 import EfficientNetV2
from keras.src.legacy.saving import legacy_h5_format

from narrow_keras import stage
from tensor_file import write_tensors

HERE = pathlib.Path(__file__).resolve().parent / "import"
SIZE, CLASSES, WIDTH = 45, 5, 0.025  # Keras fixes the top convolution at 1280 * WIDTH filters


def network():
    return EfficientNetV2(
        width_coefficient=WIDTH, depth_coefficient=1.0, default_size=SIZE, name="narrow", weights=None,
        input_shape=(SIZE, SIZE, 3), classes=CLASSES, classifier_activation=None,
        blocks_args=[stage(WIDTH, 1, 1, 8, 8, 1, 1, 0), stage(WIDTH, 1, 2, 8, 16, 4, 2, 0),
                     stage(WIDTH, 0, 2, 16, 24, 4, 2, 0.25)],
    )


def random_weight(w, rng):
    if w.name in ("gamma", "moving_variance"):
        return rng.uniform(0.5, 1.5, w.shape)
    if "kernel" in w.name:
        return rng.normal(0, np.sqrt(2 / np.prod(w.shape[:3] if w.shape[-1] == 1 else w.shape[:-1])), w.shape)
    return rng.uniform(-0.3, 0.3, w.shape)


rng = np.random.default_rng(11)
net = network()
net.set_weights([random_weight(w, rng).astype(np.float32) for w in net.weights])
# libver latest: the compact form of groups. What lies in them is Keras's own.
with h5py.File(HERE / "keras_v2.h5", "w", libver="latest") as file:
    legacy_h5_format.save_weights_to_hdf5_group(file, net)
with tempfile.TemporaryDirectory() as folder:
    net.save_weights(folder + "/net.weights.h5")
    with h5py.File(folder + "/net.weights.h5") as wide, h5py.File(HERE / "keras_v2.weights.h5", "w", libver="latest") as file:
        for name in wide:
            wide.copy(name, file)

keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
exact = network()
exact.set_weights(net.get_weights())
pixels = rng.integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
logits = np.asarray(exact(pixels.astype(np.float64), training=False)).astype(np.float32)
write_tensors(HERE / "keras_v2.safetensors", {"pixels": pixels, "logits": logits})
print("logits", logits.std(), "float32 differs by", np.abs(np.asarray(net(pixels.astype(np.float32))) - logits).max())

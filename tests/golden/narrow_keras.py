"""Blocks of the narrow EfficientNetV2s that the scripts beside this one build with Keras."""


def stage(width, kind, repeats, filters_in, filters, expand, stride, se):
    """One entry of blocks_args, of `filters` channels once Keras has scaled them by `width`. kind 1: Fused-MBConv."""
    return {
        "kernel_size": 3, "num_repeat": repeats, "input_filters": filters_in / width, "output_filters": filters / width,
        "expand_ratio": expand, "se_ratio": se, "strides": stride, "conv_type": kind,
    }

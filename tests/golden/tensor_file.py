"""Writing safetensors files without the package: what the scripts beside this one leave."""
import json
import struct

import numpy as np

KINDS = {"float32": "F32", "uint16": "BF16", "uint8": "U8", "int32": "I32", "int64": "I64"}  # bfloat16 by its bits


def write_tensors(path, tensors, metadata=None):
    """tensors: arrays by name, in this order. metadata: texts by name."""
    header, data = {"__metadata__": metadata} if metadata else {}, bytearray()
    for name, value in tensors.items():
        raw = np.ascontiguousarray(value).tobytes()
        header[name] = {"dtype": KINDS[str(value.dtype)], "shape": list(value.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))

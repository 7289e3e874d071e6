"""``.safetensors`` for writing: a length, a JSON header, and the bytes of all tensors.

The other direction is `convnets.pretrained.readers.safetensors`.
"""

import json

import numpy as np

CODES = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64"}
ALIGNMENT = 8      # bytes, where the first tensor begins


def write(file, arrays):
    """Write arrays to a binary file.

    Parameters
    ----------
    file : binary file
    arrays : dict of str to ndarray
    """
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": CODES[array.dtype.name], "shape": array.shape,
                        "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in arrays.values():
        numbers = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        file.write(memoryview(numbers.reshape(-1).view(np.uint8)))

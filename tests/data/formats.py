"""Writers of the formats that the loaders read, by the letter of their descriptions."""

import gzip
import struct

import numpy as np

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx_bytes(array, kind="u1"):
    head = struct.pack(f">4B{array.ndim}I", 0, 0, CODES[kind], array.ndim, *array.shape)
    return head + array.astype(kind).tobytes()


def random(*shape, high=256, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape)


def write_mnist(folder, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = random(40, 28, 28), random(40, high=10), random(20, 28, 28), random(20, high=10)
    arrays[0][:, 0, 0] = 7
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    for name, array in zip(names, arrays, strict=True):
        content = idx_bytes(array)
        path = folder / f"{name}-ubyte{suffix}"
        path.write_bytes(gzip.compress(content) if suffix else content)
    return arrays


def cifar_bytes(labels, images):
    """Records as the format's page describes them: labels, then red, green and blue planes."""
    rows = [
        bytes(label) + image.transpose(2, 0, 1).tobytes()
        for label, image in zip(labels, images, strict=True)
    ]
    return b"".join(rows)

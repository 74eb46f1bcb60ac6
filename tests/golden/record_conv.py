"""Records torch's convolutions and pools, in float64 and channels last, into conv.npz."""

import pathlib

import numpy as np
import torch
from torch.nn import functional

torch.set_default_dtype(torch.float64)
torch.manual_seed(20240613)
out: dict[str, np.ndarray] = {}


def keep(name, value):
    out[name] = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def last(x):
    return x.movedim(1, -1)


def convolution(name, shape, features, window, groups, **settings):
    """`shape` is (batch, channels, *space)."""
    x = torch.randn(shape, requires_grad=True)
    k = torch.randn(features, shape[1] // groups, *window, requires_grad=True)
    bias = torch.randn(features)
    conv = functional.conv1d if len(window) == 1 else functional.conv2d
    y = conv(x, k, bias, groups=groups, **settings)
    cotangent = torch.randn(y.shape)
    dx, dk = torch.autograd.grad(y, (x, k), cotangent)
    for field, value in {"x": x, "y": y, "cotangent": cotangent, "dx": dx}.items():
        keep(f"{name}/{field}", last(value))
    for field, value in {"kernel": k, "dkernel": dk}.items():
        keep(f"{name}/{field}", value.movedim((0, 1), (-1, -2)))
    keep(f"{name}/bias", bias)


convolution("plain", (3, 2, 5, 6), 3, (3, 2), 1, padding=(2, 1))
convolution("strided", (2, 3, 7, 6), 4, (3, 3), 1, stride=2, padding=1)
convolution("dilated", (2, 2, 8, 7), 3, (3, 2), 1, stride=(1, 2), dilation=(2, 3), padding=(1, 2))
convolution("grouped", (2, 6, 5, 5), 9, (2, 3), 3, stride=(2, 1), padding=1)
convolution("sequence", (3, 2, 9), 4, (4,), 2, stride=3, padding=2, dilation=2)


def pool(name, x, function, **settings):
    x = x.clone().requires_grad_()
    y = function(x, **settings)
    cotangent = torch.randn(y.shape)
    (dx,) = torch.autograd.grad(y, x, cotangent)
    for field, value in {"x": x, "y": y, "cotangent": cotangent, "dx": dx}.items():
        keep(f"{name}/{field}", last(value))


# Small integers, so that many windows have ties.
ties = torch.randint(-2, 2, (2, 3, 7, 6)).double()
real = torch.randn(2, 3, 7, 6)
pool("max_side_by_side", ties, functional.max_pool2d, kernel_size=(2, 3))
pool("max_overlapping", ties, functional.max_pool2d, kernel_size=3, stride=2, padding=1)
pool("max_sequence", ties[..., 0], functional.max_pool1d, kernel_size=3, stride=2)
pool("avg_side_by_side", real, functional.avg_pool2d, kernel_size=(2, 3))
pool("avg_counting", real, functional.avg_pool2d, kernel_size=3, stride=2, padding=1)
pool(
    "avg_not_counting", real, functional.avg_pool2d, kernel_size=3, stride=2, padding=1,
    count_include_pad=False,
)  # fmt: skip
pool("avg_sequence", real[..., 0], functional.avg_pool1d, kernel_size=4, stride=3)
np.savez_compressed(pathlib.Path(__file__).with_name("conv.npz"), **out)

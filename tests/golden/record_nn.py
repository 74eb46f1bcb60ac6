"""Records torch's values of layers and losses, in float64, into nn.npz."""

import pathlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional

torch.set_default_dtype(torch.float64)
torch.manual_seed(20240607)
out: dict[str, np.ndarray] = {}


def keep(name, value):
    out[name] = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def batch_norm(name, shape, momentum, eps):
    """20 steps of training, an evaluation after each, the gradients of the last."""
    module = (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(
        shape[-1], momentum=momentum, eps=eps
    )
    with torch.no_grad():
        module.weight.copy_(torch.randn(shape[-1]) + 1.5)
        module.bias.copy_(torch.randn(shape[-1]))
    keep(f"{name}/scale", module.weight)
    keep(f"{name}/bias", module.bias)

    def last(x):
        return x if x.ndim == 2 else x.permute(0, 2, 3, 1)

    def first(x):
        return x if x.ndim == 2 else x.permute(0, 3, 1, 2)

    xs = 3.0 * torch.randn(20, *shape) * torch.rand(shape[-1]) + 2.0 * torch.randn(shape[-1])
    keep(f"{name}/x", xs)
    fixed = torch.randn(shape)
    keep(f"{name}/fixed", fixed)
    records = {"train": [], "eval": [], "mean": [], "var": []}
    for x in xs:
        module.train()
        x = x.clone().requires_grad_()
        y = last(module(first(x)))
        records["train"].append(y)
        records["mean"].append(module.running_mean.clone())
        records["var"].append(module.running_var.clone())
        module.eval()
        records["eval"].append(last(module(first(fixed))))
    for field, values in records.items():
        keep(f"{name}/{field}", torch.stack(values))
    cotangent = torch.randn(shape)
    keep(f"{name}/cotangent", cotangent)
    dx, dscale, dbias = torch.autograd.grad(y, (x, module.weight, module.bias), cotangent)
    keep(f"{name}/dx", dx)
    keep(f"{name}/dscale", dscale)
    keep(f"{name}/dbias", dbias)


batch_norm("batch_norm_1d", (7, 5), 0.23, 0.013)
batch_norm("batch_norm_pairs", (2, 3), 0.1, 1e-5)
batch_norm("batch_norm_2d", (3, 4, 2, 5), 0.37, 0.02)

# Statistics recomputed for a model with two batch norms, by torch's own routine.
model = nn.Sequential(
    nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3), nn.BatchNorm1d(3)
)
for index in (0, 3):
    keep(f"update_bn/{index}/kernel", model[index].weight.T)
    keep(f"update_bn/{index}/bias", model[index].bias)
batches = torch.randn(6, 8, 4) * 2 + 1
keep("update_bn/batches", batches)
torch.optim.swa_utils.update_bn(list(batches), model)
for index in (1, 4):
    keep(f"update_bn/{index}/mean", model[index].running_mean)
    keep(f"update_bn/{index}/var", model[index].running_var)

# Norms without state, with gradients.
x = (torch.randn(3, 4, 2, 6) * 2 + 0.7).requires_grad_()
scale, bias = torch.randn(6, requires_grad=True), torch.randn(6, requires_grad=True)
cotangent = torch.randn(3, 4, 2, 6)
for name, value in (("x", x), ("scale", scale), ("bias", bias), ("cotangent", cotangent)):
    keep(f"norms/{name}", value)
for name, y, wrt in (
    ("layer_norm", functional.layer_norm(x, (6,), scale, bias, 0.07), (x, scale, bias)),
    (
        "group_norm",
        functional.group_norm(x.permute(0, 3, 1, 2), 3, scale, bias, 0.03).permute(0, 2, 3, 1),
        (x, scale, bias),
    ),
    ("rms_norm", functional.rms_norm(x, (6,), scale, 0.05), (x, scale)),
):
    keep(f"{name}/y", y)
    for wanted, gradient in zip(["x", "scale", "bias"], torch.autograd.grad(y, wrt, cotangent)):
        keep(f"{name}/d{wanted}", gradient)

# Recurrent layers on packed sequences, both ways.
lengths = torch.tensor([6, 4, 1, 5])
x = torch.randn(4, 6, 3, requires_grad=True)
keep("recurrent/x", x)
keep("recurrent/lengths", lengths)
for name, make in (("rnn", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)):
    module = make(3, 5, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2.0)
    for way, suffix in (("forward", "_l0"), ("backward", "_l0_reverse")):
        kernel, recurrent = (getattr(module, f"weight_{w}{suffix}") for w in ("ih", "hh"))
        first, second = (getattr(module, f"bias_{w}{suffix}").clone() for w in ("ih", "hh"))
        keep(f"{name}/{way}/kernel", kernel.T)
        keep(f"{name}/{way}/recurrent_kernel", recurrent.T)
        if name == "gru":
            keep(f"{name}/{way}/recurrent_bias", second[10:].clone())
            second[10:] = 0
        keep(f"{name}/{way}/bias", first + second)
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    y, final = module(packed)
    y, _ = nn.utils.rnn.pad_packed_sequence(y, True)
    final = final[0] if name == "lstm" else final
    keep(f"{name}/y", y)
    keep(f"{name}/final", torch.cat([final[0], final[1]], -1))
    keep(f"{name}/full", module(x)[0])
    cotangent = torch.randn_like(y)
    keep(f"{name}/cotangent", cotangent)
    dx, dkernel, drecurrent = torch.autograd.grad(
        y, (x, module.weight_ih_l0, module.weight_hh_l0), cotangent
    )
    keep(f"{name}/dx", dx)
    keep(f"{name}/dkernel", dkernel.T)
    keep(f"{name}/drecurrent_kernel", drecurrent.T)

# Attention: plain, causal, with padding, with both.
module = nn.MultiheadAttention(8, 2, batch_first=True)
with torch.no_grad():
    module.in_proj_bias.copy_(torch.randn(24))
    module.out_proj.bias.copy_(torch.randn(8))
    module.in_proj_weight.mul_(3.0)
keep("attention/qkv/kernel", module.in_proj_weight.T)
keep("attention/qkv/bias", module.in_proj_bias)
keep("attention/out/kernel", module.out_proj.weight.T)
keep("attention/out/bias", module.out_proj.bias)
x = torch.randn(3, 5, 8)
lengths = torch.tensor([5, 2, 4])
keep("attention/x", x)
keep("attention/lengths", lengths)
padding = torch.arange(5)[None] >= lengths[:, None]
causal = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
for name, masks in (
    ("plain", {}),
    ("causal", {"attn_mask": causal}),
    ("padded", {"key_padding_mask": padding}),
    ("both", {"attn_mask": causal, "key_padding_mask": padding}),
):
    keep(f"attention/{name}", module(x, x, x, need_weights=False, **masks)[0])

# Activations and their gradients.
x = torch.tensor([-30.0, -4.2, -1.3, -0.4, 0.3, 1.1, 2.9, 31.0], requires_grad=True)
keep("activation/x", x)
for name, function in (
    ("sigmoid", torch.sigmoid),
    ("tanh", torch.tanh),
    ("relu", functional.relu),
    ("leaky_relu", lambda x: functional.leaky_relu(x, 0.17)),
    ("elu", lambda x: functional.elu(x, 0.6)),
    ("selu", functional.selu),
    ("softplus", functional.softplus),
    ("gelu_exact", functional.gelu),
    ("gelu", lambda x: functional.gelu(x, approximate="tanh")),
    ("silu", functional.silu),
    ("softmax", lambda x: functional.softmax(x / 8, -1)),
    ("log_softmax", lambda x: functional.log_softmax(x / 8, -1)),
):
    y = function(x)
    keep(f"activation/{name}", y)
    keep(f"activation/{name}/gradient", torch.autograd.grad(y, x, torch.cos(x.detach()))[0])

# Losses, per example, and their gradients.
logits = (3 * torch.randn(6, 4)).requires_grad_()
classes = torch.tensor([0, 3, 1, 2, 2, 0])
probabilities = functional.softmax(torch.randn(6, 4), -1)
values, numbers = torch.randn(6, 4, requires_grad=True), 2 * torch.randn(6, 4)
labels = torch.randint(0, 2, (6, 4)).double()
for name, value in (
    ("logits", logits),
    ("classes", classes),
    ("probabilities", probabilities),
    ("values", values),
    ("numbers", numbers),
    ("labels", labels),
):
    keep(f"loss/{name}", value)
smooth = labels * 0.8 + 0.1
for name, loss, wrt in (
    ("classes", functional.cross_entropy(logits, classes, reduction="none"), logits),
    (
        "smoothed",
        functional.cross_entropy(logits, classes, reduction="none", label_smoothing=0.3),
        logits,
    ),
    (
        "probabilities",
        functional.cross_entropy(logits, probabilities, reduction="none", label_smoothing=0.3),
        logits,
    ),
    (
        "sigmoid",
        functional.binary_cross_entropy_with_logits(logits, smooth, reduction="none").mean(-1),
        logits,
    ),
    ("squared", functional.mse_loss(values, numbers, reduction="none").mean(-1), values),
    ("absolute", functional.l1_loss(values, numbers, reduction="none").mean(-1), values),
    ("huber", functional.huber_loss(values, numbers, reduction="none", delta=0.7).mean(-1), values),
    (
        "multiclass_hinge",
        functional.multi_margin_loss(logits, classes, margin=1.4, reduction="none") * 4,
        logits,
    ),
    (
        "kl",
        functional.kl_div(functional.log_softmax(logits, -1), probabilities, reduction="none").sum(
            -1
        ),
        logits,
    ),
):
    keep(f"loss/{name}/value", loss)
    keep(f"loss/{name}/gradient", torch.autograd.grad(loss.sum(), wrt)[0])

path = pathlib.Path(__file__).parent / "nn.npz"
np.savez_compressed(path, **out)
print(path, path.stat().st_size, "bytes", len(out), "arrays, torch", torch.__version__)

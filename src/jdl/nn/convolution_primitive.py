"""The convolution as one JAX primitive: its derivatives, its batching, its lowering.

It is bilinear and can compute any one of its three operands from the other two,
so it is its own derivative of every order, forwards and backwards. Under `vmap`
over kernels it stays one primitive, with a leading axis of lanes, until the
backend is known.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jdl.nn.convolution_accelerator import on_accelerator
from jdl.nn.convolution_cpu import on_cpu
from jdl.nn.convolution_spec import Spec


def _abstract(a: Any, b: Any, *, spec: Spec) -> Any:
    shape = (*spec.lanes(a.shape, b.shape), *spec.shapes(a.shape, b.shape)[spec.missing])
    # The operand of the same rank, whose type also says over which devices it varies.
    like = a if spec.laned[0] or not any(spec.laned) else b
    return like.update(shape=shape, weak_type=False)


def _bind(values: dict[str, Any], laned: dict[str, bool], spec: Spec) -> Any:
    spec = spec._replace(laned=tuple(laned[role] for role in spec.given))
    return convolution_p.bind(*(values[role] for role in spec.given), spec=spec)


def _transpose(place: int, cotangent: Any, a: Any, b: Any, spec: Spec) -> Any:
    wanted, other = spec.given[place], spec.given[1 - place]
    values = {spec.missing: cotangent, other: (a, b)[1 - place]}
    laned = {spec.missing: any(spec.laned), other: spec.laned[1 - place]}
    out = _bind(values, laned, spec._replace(missing=wanted))
    return out.sum(0) if any(spec.laned) and not spec.laned[place] else out


def _batch(args: Any, dims: Any, *, spec: Spec) -> Any:
    size = next(v.shape[d] for v, d in zip(args, dims) if d is not None)
    args = [v if d is None else jnp.moveaxis(v, d, 0) for v, d in zip(args, dims)]
    roles = spec.given
    mapped = {role: d is not None for role, d in zip(roles, dims)}
    laned = dict(zip(roles, spec.laned))
    values = dict(zip(roles, args))
    if spec.missing != "kernel" and not mapped["kernel"]:
        # With one kernel for all, the lanes are just more examples of one batch.
        (images,) = (role for role in roles if role != "kernel")
        at = int(laned[images])
        v = jnp.moveaxis(values[images], 0, at)
        values[images] = v.reshape(*v.shape[:at], -1, *v.shape[at + 2 :])
        out = _bind(values, laned, spec)
        at = int(any(spec.laned))
        return out.reshape(*out.shape[:at], size, -1, *out.shape[at + 1 :]), at
    inner = [v.shape[1 if mapped[r] else 0] for r, v in values.items() if laned[r]][:1]
    for role, v in values.items():
        if inner and (mapped[role] or laned[role]):
            v = v if mapped[role] else v[None]
            v = v if laned[role] else v[:, None]
            v = jnp.broadcast_to(v, (size, *inner, *v.shape[2:]))
            values[role] = v.reshape(-1, *v.shape[2:])
    laned = {role: laned[role] or mapped[role] for role in roles}
    out = _bind(values, laned, spec)
    return out.reshape(size, *inner, *out.shape[1:]), 0


convolution_p = Primitive("jdl_convolution")
convolution_p.def_abstract_eval(_abstract)
_compiled = jax.jit(lambda a, b, spec: convolution_p.bind(a, b, spec=spec), static_argnums=2)
convolution_p.def_impl(lambda a, b, *, spec: _compiled(a, b, spec))
ad.defbilinear(
    convolution_p,
    lambda cotangent, a, b, *, spec: _transpose(0, cotangent, a, b, spec),
    lambda cotangent, a, b, *, spec: _transpose(1, cotangent, a, b, spec),
)
batching.primitive_batchers[convolution_p] = _batch
mlir.register_lowering(
    convolution_p,
    mlir.lower_fun(lambda a, b, *, spec: on_accelerator(a, b, spec), multiple_results=False),
)
mlir.register_lowering(
    convolution_p,
    mlir.lower_fun(lambda a, b, *, spec: on_cpu(a, b, spec), multiple_results=False),
    platform="cpu",
)

"""BFGS and L-BFGS: the inverse Hessian learnt from how the gradient changes along the way."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

from jdl._checks import Count, check_count
from jdl._promotion import promoting
from jdl.optim.base import Number, Optimizer
from jdl.optim.solvers.direction import Direction, Vector, dot, follow, unit
from jdl.optim.solvers.line_search import STRONG_WOLFE, LineSearch


def _curved(sy: Float[Array, ""], sg: Float[Array, ""]) -> Bool[Array, ""]:
    """Whether a pair has curvature beyond rounding: `<s, y>` against `<s, g>` at its new end.

    A relative test: an absolute one would skip good pairs of badly scaled
    problems and keep the noise of others.
    """
    return (sy > 4 * jnp.finfo(sy.dtype).eps * jnp.abs(sg)) & jnp.isfinite(sy)


class BFGSMemory(NamedTuple):
    """What BFGS has learnt: the inverse Hessian, and the number of pairs it is made of."""

    inverse: Float[Array, "n n"]
    pairs: Int[Array, ""]


def bfgs_direction() -> Direction:
    """The direction of BFGS, for `minimize`; see `bfgs` for the formula."""

    @promoting
    def init(x: Vector) -> BFGSMemory:
        return BFGSMemory(jnp.eye(x.size, dtype=x.dtype), jnp.zeros((), jnp.int32))

    @promoting
    def propose(
        memory: BFGSMemory,
        fun: Any,
        x: Vector,
        gradient: Vector,
        s: Vector,
        y: Vector,
        learn: Any,
        reset: Any,
        active: Any,
    ) -> tuple[BFGSMemory, Vector]:
        sy, yy = dot(s, y), dot(y, y)
        learn &= _curved(sy, dot(s, gradient))
        sy, yy = jnp.where(learn, sy, 1), jnp.where(learn, yy, 1)
        s, y = jnp.where(learn, s, 0), jnp.where(learn, y, 0)
        pairs = jnp.where(reset, 0, memory.pairs)
        H = jnp.where(reset, jnp.eye(x.size, dtype=x.dtype), memory.inverse)
        H = H * jnp.where(learn & (pairs == 0), sy / yy, 1)
        Hy = jnp.dot(H, y, precision="highest")
        u = (1 + dot(y, Hy) / sy) / (2 * sy) * s - Hy / sy
        H = H + jnp.outer(s, u) + jnp.outer(u, s)
        d = -jnp.dot(H, gradient, precision="highest")
        pairs = pairs + learn
        return BFGSMemory(H, pairs), jnp.where(pairs == 0, -unit(gradient)[0], d)

    return Direction(init, propose)


class LBFGSMemory(NamedTuple):
    """The last `m` pairs in a ring of `m + 1` slots, with the small matrices to apply them.

    With `S` the changes of the parameters and `Y` those of the gradient, one a
    row, and `R` the part of `S Y^T` on and above the diagonal in order of age:

    Attributes:
      pairs: for each slot a row `s` and a row `y`.
      inverse: `R^{-1}`. Its rows and columns stand in the ring's order, which
        needs no rotation: dropping the oldest pair clears a row and a column of
        the inverse, adding one writes a column. A slot that holds no pair is
        zero here, and that alone keeps it out of the direction.
      curvatures: the diagonal of `R`.
      products: `Y Y^T`.
      scale: `<s, y> / <y, y>` of the last pair; 0 when there is none.
      slot: the slot that holds no pair, where the next one goes. It is written
        whether the pair is to be kept or not: a select of old and new would
        copy the whole ring every turn.
    """

    pairs: Float[Array, "rows n"]
    inverse: Float[Array, "slots slots"]
    curvatures: Float[Array, "slots"]
    products: Float[Array, "slots slots"]
    scale: Float[Array, ""]
    slot: UInt[Array, ""]


@jax.custom_batching.custom_vmap
def _write_rows(rows: Array, new: Array, start: Array) -> Array:
    """`rows` with `new` at `start`: in place, and as one fused select where lanes differ."""
    return jax.lax.dynamic_update_slice(rows, new, (start, jnp.zeros_like(start)))


@_write_rows.def_vmap
def _(
    axis_size: int, in_batched: list[bool], rows: Array, new: Array, start: Array
) -> tuple[Array, bool]:
    def write(rows: Array, new: Array, start: Array) -> Array:
        at = jnp.arange(rows.shape[0])[:, None] - start.astype(jnp.int32)
        return jnp.where(at == 0, new[0], jnp.where(at == 1, new[1], rows))

    axes = [0 if batched else None for batched in in_batched]
    return jax.vmap(write, axes, axis_size=axis_size)(rows, new, start), True


def lbfgs_direction(memory_size: Count = 10, scale_init_precond: bool = True) -> Direction:
    """The direction of L-BFGS, for `minimize`; see `lbfgs` for the formula."""
    slots = check_count("memory_size", memory_size) + 1

    @promoting
    def init(x: Vector) -> LBFGSMemory:
        def zeros(*shape: int) -> Array:
            return jnp.zeros(shape, x.dtype)

        return LBFGSMemory(
            zeros(2 * slots, x.size),
            zeros(slots, slots),
            zeros(slots),
            zeros(slots, slots),
            zeros(),
            jnp.zeros((), jnp.uint32),
        )

    @promoting
    def propose(
        memory: LBFGSMemory,
        fun: Any,
        x: Vector,
        gradient: Vector,
        s: Vector,
        y: Vector,
        learn: Any,
        reset: Any,
        active: Any,
    ) -> tuple[LBFGSMemory, Vector]:
        k = memory.slot
        pair = jnp.where(learn, jnp.stack([s, y]), 0)
        pairs = _write_rows(memory.pairs, pair, 2 * k)
        along_y = jnp.dot(pairs, pair[1], precision="highest").reshape(slots, 2)
        along_g = jnp.dot(pairs, gradient, precision="highest").reshape(slots, 2)
        Sy, Yy, Sg, Yg = along_y[:, 0], along_y[:, 1], along_g[:, 0], along_g[:, 1]

        at = jnp.arange(slots) == k.astype(jnp.int32)
        sy, yy, sg = (jnp.sum(jnp.where(at, v, 0)) for v in (Sy, Yy, Sg))
        keep = learn & _curved(sy, sg)
        here = at & keep
        sy, yy = jnp.where(keep, sy, 1), jnp.where(keep, yy, 1)
        scale = jnp.where(keep, sy / yy, jnp.where(reset, 0, memory.scale))
        after = jnp.where(keep, (k + 1) % slots, k)
        dropped = jnp.arange(slots) == after.astype(jnp.int32)

        older = jnp.where(reset, 0, memory.inverse)
        fresh = jnp.where(here, 1, -jnp.dot(older, Sy, precision="highest")) / sy
        inverse = jnp.where(here[None, :], fresh[:, None], older)
        inverse = jnp.where(dropped[None, :] | dropped[:, None], 0, inverse)
        D = jnp.where(here, sy, memory.curvatures)
        YY = jnp.where(
            here[:, None], Yy[None, :], jnp.where(here[None, :], Yy[:, None], memory.products)
        )
        u = jnp.dot(inverse, Sg, precision="highest")
        inner = D * u + scale * (jnp.dot(YY, u, precision="highest") - Yg)
        v = jnp.dot(inner, inverse, precision="highest")
        weights = jnp.stack([-v, scale * u], 1).reshape(-1)
        d = jnp.dot(weights, pairs, precision="highest") - scale * gradient
        first = -unit(gradient)[0] if scale_init_precond else -gradient
        return (
            LBFGSMemory(pairs, inverse, D, YY, scale, after),
            jnp.where(scale == 0, first, d),
        )

    return Direction(init, propose)


def bfgs(
    learning_rate: Number | None = None, linesearch: LineSearch | None = STRONG_WOLFE
) -> Optimizer:
    """BFGS: a rank-two update of the inverse Hessian, O(n^2) memory and work a step.

        d = -H g                                w += t d, t by a line search
        H = (1 - s y^T/<s,y>) H (1 - y s^T/<s,y>) + s s^T/<s,y>

    with `s` the change of `w` and `y` the change of `g`. The first direction is
    `-g/|g|`; before the first pair is learnt, `H = <s,y>/<y,y>`. A pair without
    curvature beyond rounding is skipped. For deterministic full-batch use: the
    differences of mini-batch gradients are noise, and it does badly on them.

    Args:
      learning_rate: a number or schedule that multiplies `d`; None is 1.
      linesearch: a `LineSearch`, or None to step by `learning_rate`.

    Returns:
      An `Optimizer` whose `update` needs `params`, and `value_fn` with a line search.

    Broyden, Fletcher, Goldfarb and Shanno, 1970; Nocedal and Wright, Numerical
    Optimization, equations 6.17 and 6.20. SciPy does not scale the first `H`.
    """
    return follow(bfgs_direction(), learning_rate, linesearch, "bfgs")


def lbfgs(
    learning_rate: Number | None = None,
    memory_size: Count = 10,
    scale_init_precond: bool = True,
    linesearch: LineSearch | None = STRONG_WOLFE,
) -> Optimizer:
    """L-BFGS: BFGS from the last `memory_size` pairs, without an n x n matrix.

        d = -H g,    w += t d, t by a line search

    where `H` is the BFGS matrix made of the last pairs `(s, y)` from
    `<s,y>/<y,y>` of the newest. It is applied in the compact form,

        H g = c g + S^T R^{-T} ((D + c Y Y^T) u - c Y g) - c Y^T u,   u = R^{-1} S g

    in two passes over the pairs and no loop: the two-loop recursion gives the
    same vector in `2 memory_size` dependent steps. The first direction is
    `-g/|g|`. A pair without curvature beyond rounding is skipped. For
    deterministic full-batch use: the differences of mini-batch gradients are
    noise, and it does badly on them.

    Args:
      learning_rate: a number or schedule that multiplies `d`; None is 1.
      memory_size: the number of pairs kept; static.
      scale_init_precond: whether the first direction has length 1; else it is `-g`.
      linesearch: a `LineSearch`, or None to step by `learning_rate`.

    Returns:
      An `Optimizer` whose `update` needs `params`, and `value_fn` with a line
      search; its state holds `2 memory_size + 2` numbers per parameter.

    Nocedal, 1980; Byrd, Nocedal and Schnabel, 1994, equation 3.1. As optax's
    `lbfgs`, whose line search is an optimizer of its own and whose first
    direction is not lengthened where `|g| < 1`.
    """
    return follow(
        lbfgs_direction(memory_size, scale_init_precond), learning_rate, linesearch, "lbfgs"
    )

"""The loop whose lanes end at different turns, against loops in Python."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdl.optim.solvers.lanes import loop_lanes


class Carry(NamedTuple):
    """One leaf of every kind that a solver may carry."""

    vector: jax.Array
    value: jax.Array
    half: jax.Array
    count: jax.Array
    slot: jax.Array
    done: jax.Array
    key: jax.Array
    long: jax.Array


def collatz(n):
    def body(carry):
        going = ~carry.done
        odd = carry.count % 2 == 1
        after = jnp.where(odd, 3 * carry.count + 1, carry.count // 2)
        return carry._replace(
            vector=carry.vector + going * jnp.arange(3.0),
            value=carry.value + going * 0.5,
            count=jnp.where(going, after, carry.count),
            slot=carry.slot + going.astype(jnp.uint32),
            done=carry.done | (after == 1),
            long=carry.long + going,
        )

    start = Carry(
        jnp.zeros(3),
        jnp.zeros(()),
        jnp.ones((), jnp.bfloat16),
        n,
        jnp.zeros((), jnp.uint32),
        n == 1,
        jax.random.key(4),
        jnp.array(2**40),
    )
    return loop_lanes(lambda carry: ~carry.done, body, start)


def steps(n):
    count = 0
    while n != 1:
        n, count = (3 * n + 1 if n % 2 else n // 2), count + 1
    return count


def test_each_lane_ends_at_its_own_turn_and_keeps_every_kind_of_leaf(x64):
    numbers = np.array([[1, 6, 27], [7, 2, 97]], np.int32)
    lanes = jax.jit(jax.vmap(jax.vmap(collatz)))(jnp.array(numbers))
    counts = np.vectorize(steps)(numbers)
    np.testing.assert_array_equal(lanes.slot, counts)
    np.testing.assert_array_equal(lanes.long, 2**40 + counts)
    np.testing.assert_array_equal(lanes.value, counts * 0.5)
    np.testing.assert_array_equal(lanes.vector, counts[..., None] * np.arange(3.0))
    assert lanes.done.all()
    for name, leaf in jax.jit(collatz)(jnp.int32(6))._asdict().items():
        assert getattr(lanes, name).dtype == leaf.dtype, name
    assert (lanes.half == 1).all()


def test_lanes_are_not_selected_from_old_and_new(x64):
    """The condition of the batched loop is one scalar for all lanes."""
    jaxpr = str(jax.make_jaxpr(jax.vmap(collatz))(jnp.arange(1, 9, dtype=jnp.int32)))
    assert "reduce_or" in jaxpr
    batched = "bool[8] = while"
    assert batched not in jaxpr


def test_a_carry_without_scalars_of_a_kind():
    end = loop_lanes(lambda c: jnp.sum(c) < 10, lambda c: c + 1.5, jnp.zeros(2))
    assert end.tolist() == [6.0, 6.0]
    assert float(loop_lanes(lambda c: c < 3, lambda c: c * 2, jnp.array(0.5))) == 4.0

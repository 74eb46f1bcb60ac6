"""What every pair that follows a direction shares: units, and what it tells its direction."""

import jax.numpy as jnp
import numpy as np

from jdl import optim
from jdl.optim.solvers.direction import follow, unit
from jdl.optim.solvers.line_search import FAILED


def test_a_unit_vector_and_its_length_without_overflow():
    for scale in (1.0, 1e30, 1e-30):
        direction, length = unit(scale * jnp.array([3.0, -4.0]))
        np.testing.assert_allclose(direction, [0.6, -0.8], rtol=1e-6)
        np.testing.assert_allclose(length, 5 * scale, rtol=1e-6)
    direction, length = unit(jnp.zeros(2))
    assert (direction.tolist(), float(length)) == ([0.0, 0.0], 0.0)


def test_a_direction_is_told_when_to_learn_and_when_to_forget():
    def propose(memory, fun, x, gradient, s, y, learn, reset, active):
        flags = jnp.stack([jnp.asarray(flag, jnp.float32) for flag in (learn, reset, active)])
        return jnp.concatenate([flags, s, y]), -gradient

    direction = optim.Direction(lambda x: jnp.zeros(5), propose)
    optimizer = follow(direction, 0.5, None, "told")
    w = jnp.array([2.0])
    updates, state = optimizer.update(jnp.array([4.0]), optimizer.init(w), w)
    assert updates.tolist() == [-2.0]
    assert state.memory[:3].tolist() == [0.0, 0.0, 1.0]
    w = w + updates
    updates, state = optimizer.update(jnp.array([3.0]), state, w)
    assert state.memory.tolist() == [1.0, 0.0, 1.0, -2.0, -1.0]
    assert (float(state.learning_rate), int(state.step)) == (0.5, 2)
    _, state = optimizer.update(jnp.array([1.0]), state._replace(stage=state.stage * 0 + FAILED), w)
    assert state.memory[:3].tolist() == [0.0, 1.0, 1.0]

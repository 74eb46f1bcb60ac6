"""Ensembles: trained networks that are already stacked as lanes, and answer as one program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree

from jdl._checks import check_count
from jdl.engine.trial import Trial
from jdl.train.selection import PerExample, greedy_weights, likelihood

MakeTrial = Callable[[dict[str, Any]], Trial]


class Stacked(NamedTuple):
    """Members that share one program.

    Attributes:
      run: the compiled `run(numbers, states, x, keys)`, every member's
        prediction; `keys` is None or one key a member and draw.
      numbers: their hyperparameters, each with a leading axis of members.
      states: their states, each leaf with a leading axis of members.
      members: which members of the ensemble they are.
    """

    run: Callable[..., Any]
    numbers: dict[str, Any]
    states: PyTree
    members: tuple[int, ...]


class Ensemble(NamedTuple):
    """Trained networks whose predictions are averaged.

    Attributes:
      trials: what each member was in its sweep, best first.
      weights: of the members, sum 1.
      stacks: the members, by program.
    """

    trials: tuple[int, ...]
    weights: Float[np.ndarray, " members"]
    stacks: tuple[Stacked, ...]

    def predictions(
        self, x: Any, *, batch_size: int = 1024, key: Any = None, samples: int = 1
    ) -> np.ndarray:
        """What each member says: an array (members, examples, ...).

        Args:
          x: inputs, on the host.
          batch_size: the most examples that are on the device at once.
          key: draws masks of Monte-Carlo dropout (layers with
            `form="monte_carlo"`), others for each member; None is without.
          samples: masks for each member, over which its prediction is averaged.

        Raises:
          ValueError: `x` is empty, or a number is below 1.
        """
        x = np.asarray(x)
        if not len(x):
            raise ValueError(f"`x` needs at least one example, got shape {x.shape}.")
        size = min(check_count("batch_size", batch_size), len(x))
        samples = check_count("samples", samples)
        blocks = [
            self._block(x[start : start + size], size, key, start, samples)
            for start in range(0, len(x), size)
        ]
        return np.concatenate(blocks, 1)[:, : len(x)]

    def _block(self, x: Any, size: int, key: Any, start: int, samples: int) -> np.ndarray:
        # Padded to the one size that is compiled.
        rest = np.zeros((size - len(x), *x.shape[1:]), x.dtype)
        x = np.concatenate([x, rest]) if len(rest) else x
        answers: dict[int, np.ndarray] = {}
        for stack in self.stacks:
            keys = None
            if key is not None:
                of_block = jax.random.fold_in(key, start)
                keys = jax.vmap(
                    lambda member, of=of_block: jax.random.split(
                        jax.random.fold_in(of, member), samples
                    )
                )(jnp.asarray(stack.members, jnp.uint32))
            said = np.asarray(stack.run(stack.numbers, stack.states, x, keys))
            answers |= dict(zip(stack.members, said))
        return np.stack([answers[member] for member in range(len(self.trials))])

    def predict(self, x: Any, **options: Any) -> np.ndarray:
        """The weighted mean of `predictions`, whose options it takes: (examples, ...)."""
        return np.tensordot(self.weights, self.predictions(x, **options), 1)

    def select(
        self,
        x: Any,
        y: Any,
        *,
        rounds: int = 50,
        start: int = 1,
        score: PerExample = likelihood,
        batch_size: int = 1024,
    ) -> Ensemble:
        """The same members, weighted by greedy selection on a validation split.

        Args:
          x: its inputs.
          y: its labels or targets.
          rounds: as in `greedy_weights`.
          start: as in `greedy_weights`; the members are sorted best first.
          score: as in `greedy_weights`.
          batch_size: as in `predictions`.
        """
        said = self.predictions(x, batch_size=batch_size)
        weights = greedy_weights(said, y, rounds=rounds, start=start, score=score)
        return self._replace(weights=np.asarray(weights))


def stacked(
    make_trial: MakeTrial,
    members: Sequence[tuple[Mapping[str, Any], Mapping[str, Any], PyTree]],
    trials: Sequence[int] | None = None,
) -> Ensemble:
    """An ensemble of equal weights from trained states.

    Args:
      make_trial: gives the `Trial` of a configuration; it has to have `predict`.
      members: of each the static values of its configuration, its numbers, and
        its state. Those with equal static values are one program under `vmap`.
      trials: what the members are called; None numbers them.

    Raises:
      ValueError: there are no members, or a trial has no `predict`.
    """
    if not members:
        raise ValueError("`members` must hold at least one trained network, got none.")
    by_static: dict[tuple[Any, ...], list[int]] = {}
    for index, (static, _, _) in enumerate(members):
        by_static.setdefault(tuple(static.items()), []).append(index)
    stacks = []
    for static_items, indices in by_static.items():
        numbers = {
            name: jnp.asarray([members[i][1][name] for i in indices])
            for name in members[indices[0]][1]
        }
        states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(members[i][2] for i in indices))
        run = _program(make_trial, dict(static_items))
        stacks.append(Stacked(run, numbers, states, tuple(indices)))
    weights = np.full(len(members), 1 / len(members), np.float32)
    return Ensemble(tuple(trials or range(len(members))), weights, tuple(stacks))


def _program(make_trial: MakeTrial, static: dict[str, Any]) -> Callable[..., Any]:
    def one(numbers: dict[str, Any], state: PyTree, x: Any, keys: Any) -> Any:
        trial = make_trial({**static, **numbers})
        if trial.predict is None:
            raise ValueError(
                "An ensemble averages what `Trial.predict` gives, and this trial has none: "
                "Trial(..., predict=lambda state, x, key=None: ...)."
            )
        predict = trial.predict
        if keys is None:
            return predict(state, x)
        return jnp.mean(jax.vmap(lambda key: predict(state, x, key))(keys), 0)

    return jax.jit(jax.vmap(one, in_axes=(0, 0, None, 0)))

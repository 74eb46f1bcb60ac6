"""Makes the groups of a sweep: tries, traces and plans what trials of a program share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jdl.data.dataset import Dataset
from jdl.engine.contract import Shapes, trace_shapes
from jdl.engine.events import Queued
from jdl.engine.group import Group
from jdl.engine.plan import Plan, make_plan
from jdl.engine.trial import Trial
from jdl.engine.tune import tuned
from jdl.engine.workload import Workload, splits_of
from jdl.sweep.search import Config
from jdl.sweep.space import names

MakeTrial = Callable[[dict[str, Any]], Trial]
Static = tuple[tuple[str, Any], ...]


class Making(NamedTuple):
    """What the groups of a sweep are made with.

    Attributes:
      make_trial: gives the trial of a configuration.
      workload: gives the workload of a group from `make`, which makes its trials.
      data: what they train on.
      mesh: the devices.
      lanes: on each device, if the user gives it; "tune" times widths.
      members: whether every trial needs a lane of its own from the start.
      plans: those of a resumed run, by label, which stay as they are.
      say: receives messages.
    """

    make_trial: MakeTrial
    workload: Callable[..., Workload]
    data: Dataset
    mesh: Mesh
    lanes: int | str | None
    members: bool
    plans: Mapping[str, Any]
    say: Callable[[str], None]

    def group(
        self, static: Static, configs: Sequence[Config], example: Queued, expected: int, whole: int
    ) -> Group:
        """The group of some static values.

        Args:
          static: the values, by name.
          configs: of its first trials.
          example: the first of them.
          expected: an estimate of how many trials it will have.
          whole: how many it has in all parts of the sweep.

        Raises:
          ValueError: the trial cannot run as a lane.
        """
        make_trial = self.make_trial
        work = self.workload(make=lambda numbers: make_trial({**dict(static), **numbers}))
        check = make_trial(dict(configs[0])).check
        if check is not None:
            check(self.data)
        label = names(static)
        shapes = _trace(work, example, label)
        if label in self.plans:
            return Group(label, work, shapes, Plan(**self.plans[label]))
        width = self._width(len(configs))
        given = None if width == "tune" else width
        # The last bits may depend on the width, so a part takes that of the whole sweep, unless
        # its trials would leave most lanes idle.
        plan = make_plan(work, shapes, whole, self.mesh, given)
        if 2 * expected < plan.lanes * plan.devices:
            plan = make_plan(work, shapes, expected, self.mesh, given)
        if width == "tune":
            data = splits_of(self.data)
            plan = tuned(work, shapes, plan, expected, self.mesh, example.numbers, data, self.say)
        return Group(label, work, shapes, plan)

    def _width(self, members: int) -> Any:
        if not self.members:
            return self.lanes
        least = -(-members // self.mesh.size)
        if isinstance(self.lanes, int) and self.lanes < least:
            raise ValueError(
                f"A population needs a lane for each of its members, here {least} on each device "
                f"for {members}, got lanes={self.lanes}."
            )
        return self.lanes if isinstance(self.lanes, int) else least

    def try_extremes(self, static: Static, configs: Sequence[Config]) -> None:
        """Makes the trials with the smallest and the largest value of each number, without a trace.

        A constructor checks concrete numbers, so a rate out of range fails here by
        name, instead of making a network diverge.
        """
        numbers = [name for name in configs[0] if name not in dict(static)]
        extremes = {0}
        for name in numbers:
            values = [config[name] for config in configs]
            extremes |= {int(np.argmin(values)), int(np.argmax(values))}
        for index in sorted(extremes):
            try:
                trial = self.make_trial(dict(configs[index]))
            except Exception as error:
                error.add_note(f"make_trial was called with {configs[index]}.")
                raise
            if not isinstance(trial, Trial):
                raise TypeError(
                    f"make_trial must return a jdl.train.Trial, got {type(trial).__name__}."
                )


def _trace(work: Workload, queued: Queued, label: str) -> Shapes:
    try:
        return trace_shapes(work, dict(queued.numbers))
    except TypeError as error:  # JAX's errors about traced values are among these
        words = ("concrete value", "cannot be traced")
        traced = isinstance(error, jax.errors.JAXTypeError) or any(w in str(error) for w in words)
        if not traced:
            error.add_note(f"While the trial of {label or 'this space'} was traced.")
            raise
        raise ValueError(
            "make_trial, or the trial that it makes, used a hyperparameter as a Python value (in "
            "an `if`, as a shape, or in NumPy), but numbers of a space are traced. If it sets a "
            "shape, mark it static: sweep.choice(32, 64, static=True) or sweep.integer(1, 4, "
            f"static=True). If it switches something off, use a value that does so.\n{error}"
        ) from error
    except Exception as error:
        error.add_note(f"While the trial of {label or 'this space'} was traced.")
        raise

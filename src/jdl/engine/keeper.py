"""Which trials' states are kept: the best ones, whatever the order in which they come."""

from __future__ import annotations

import math
from collections.abc import Sequence

from jdl.engine import checkpoint
from jdl.engine.group import Group


class Keeper:
    """Knows the scores of the states that the store keeps."""

    def __init__(self, most: int, scores: dict[int, float]):
        self.most = most
        self._kept = dict(scores)

    def states(
        self, group: Group, candidates: Sequence[tuple[int, int, float]]
    ) -> list[tuple[int, float, bytes]]:
        """The states of those lanes, of (lane, trial, score), that are among the best so far."""
        states = []
        kept = self._kept
        for lane, trial, score in candidates:
            others = [(kept[t], -t) for t in kept if t != trial]
            # Of equal scores the earlier trial stays, as in the store.
            beaten = len(others) >= self.most and (score, -trial) < min(others, default=(0, 0))
            if beaten or not self.most or score == -math.inf or score <= kept.get(trial, -math.inf):
                continue
            states.append((trial, score, checkpoint.to_bytes(group.lane_state(lane))))
            kept[trial] = score
            if len(kept) > self.most:
                del kept[min(kept, key=lambda t: (kept[t], -t))]
        return states

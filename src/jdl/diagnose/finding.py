"""What a check says: its figures, what is wrong by kind, how badly, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

VERDICTS = ("fine", "suspicious", "wrong")

# Of two findings equally bad the one that may cause the other comes first: data before
# initialisation, initialisation before rates, rates before curves.
CAUSES = (
    "data_report",
    "key_reuse",
    "gradient_check",
    "carried_state",
    "evaluation_mode",
    "symmetry",
    "activation_statistics",
    "gradient_statistics",
    "loss_at_init",
    "regularization_raises_loss",
    "learning_rate_range",
    "update_ratio",
    "overfit_small_batch",
    "dead_units",
    "read_curve",
)

_NOTHING_LEARNT = {("cannot", "wrong"), ("underfit", "wrong")}


class Problem(NamedTuple):
    """One thing that a check does not like.

    Attributes:
      kind: a word for it, as "dead" or "leakage".
      verdict: "suspicious" or "wrong".
      advice: what was seen, with its figures, and what to do about it.
    """

    kind: str
    verdict: str
    advice: str


class Finding(NamedTuple):
    """What a check found.

    Attributes:
      check: its name.
      figures: what it measured, by name: numbers, arrays and names of layers.
      note: what it saw, in a sentence with figures.
      problems: what it does not like; empty if all is fine.
    """

    check: str
    figures: dict[str, Any]
    note: str
    problems: tuple[Problem, ...] = ()

    @property
    def verdict(self) -> str:
        """The worst of its problems' verdicts; "fine" if there is none."""
        return max((p.verdict for p in self.problems), key=VERDICTS.index, default="fine")

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its problems, the worst first."""
        return tuple(p.kind for p in sorted(self.problems, key=_severity))

    @property
    def advice(self) -> str:
        """What to do, the worst first; the note if all is fine."""
        return " ".join(p.advice for p in sorted(self.problems, key=_severity)) or self.note


class Found(NamedTuple):
    """A problem and the check that found it."""

    check: str
    problem: Problem


def by_severity(findings: Iterable[Finding]) -> list[Found]:
    """All problems, the worst first; of equally bad ones causes before what they cause.

    Where nothing is learnt at all, what is suspicious of data, keys, layers and
    gradients is listed before that: it may be why.

    >>> slow = Finding("read_curve", {}, "", (Problem("plateau", "suspicious", "Wait."),))
    >>> same = Finding("symmetry", {}, "", (Problem("equal_units", "wrong", "Draw weights."),))
    >>> [found.check for found in by_severity([slow, same])]
    ['symmetry', 'read_curve']
    """
    found = [Found(f.check, problem) for f in findings for problem in f.problems]
    stuck = any((f.problem.kind, f.problem.verdict) in _NOTHING_LEARNT for f in found)

    def place(f: Found) -> tuple[int, int, int]:
        cause = CAUSES.index(f.check)
        may_be_why = stuck and cause < CAUSES.index("learning_rate_range")
        own = _severity(f.problem)
        return (-2 if may_be_why else own), cause, own

    return sorted(found, key=place)


def worst(findings: Iterable[Finding]) -> str:
    """The worst verdict among `findings`."""
    return max((f.verdict for f in findings), key=VERDICTS.index, default="fine")


def graded(value: float, suspicious: float, wrong: float) -> str | None:
    """The verdict on a value that is worse the larger it is; None if it is fine.

    >>> graded(0.1, 0.25, 0.5), graded(0.3, 0.25, 0.5), graded(float("nan"), 0.25, 0.5)
    (None, 'suspicious', 'wrong')
    """
    if not value <= wrong:  # NaN is as bad as it gets
        return "wrong"
    return "suspicious" if value > suspicious else None


def _severity(problem: Problem) -> int:
    return -VERDICTS.index(problem.verdict)

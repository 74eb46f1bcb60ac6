"""Writes docs/check.md from the set-ups of the tests, in half an hour: `python docs/check.py`."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax

from jdl import diagnose

ROOT = pathlib.Path(__file__).parents[1]
SEED = 3

HEAD = """\
# How often `jdl check` is wrong

Made by `python docs/check.py` from the set-ups that `tests/diagnose` keeps: networks, data and
optimizers that are broken in one way each, and others that are healthy. A broken one is missed
where the first problem of the report is not the fault, and a healthy one is a false alarm
where there is any problem at all, if only a suspicious one. Every set-up is checked with
seed {seed}.

| | set-ups | wrong | rate | at most, with 95 % confidence |
|---|---|---|---|---|
| missed | {broken} | {missed} | {missed_rate:.0%} | {missed_most:.0%} |
| false alarms | {healthy} | {alarms} | {alarm_rate:.0%} | {alarm_most:.0%} |

The thresholds of the checks were chosen with most of these set-ups at hand, and all networks are
small and most data are digits: of others expect more of both errors. When the table was first
made, an autoencoder, a slow vision transformer and smoothed labels were false alarms; the checks
were mended on them, and the overfitted set-up got a higher rate, at which it overfits as much as
the check asks for. The bound is of Clopper and Pearson.
"""

LIMITS = """\
## What it cannot tell

- An optimizer that is made anew in each step and kept in no state: it is the same program as one
  without a state, so Adam is then descent along the signs of the gradient.
- Copies between splits that were turned, cropped or changed by more than a tenth of the distance
  between neighbours. Tokens, and data of more than 300 million numbers, are only compared bit by
  bit.
- Partly wrong labels, and labels that neither a nearest neighbour nor a
  class mean tells, such as a parity: the first pass, the second are called unrelated.
- A loss that is scaled, where the untrained outputs are so near to 0 that all labels cost the
  same.
- Whether a loss that reports no accuracy and has a least value far above 0 (smoothed labels) was
  learnt by heart: it is called "cannot", wrongly.
- Whether a network learns slowly or not at all in the 50 to 200 steps that a check takes: a rate
  less than 30 times below the best of these has the benefit of the doubt.
"""


class Row(NamedTuple):
    """A set-up, what the report says first, and whether that is right."""

    group: str
    name: str
    right: bool
    said: str
    verdict: str


def checked() -> Iterator[Row]:
    """Each set-up of the tests with what all checks say of it."""
    sys.path.insert(0, str(ROOT))
    from tests.diagnose.broken import cases
    from tests.diagnose.healthy import healthy

    for name, case in cases().items():
        with jax.debug_key_reuse(False):
            report = diagnose.examine(
                case.make, case.dataset, rate=case.rate, penalty=case.penalty, seed=SEED
            )
        said = {(found.check, found.problem.kind) for found in report.problems[:1]}
        yield row("broken", name, bool(said & {(case.check, case.kind), *case.also}), report)
    for name, (make, dataset, rate) in healthy().items():
        report = diagnose.examine(make, dataset, rate=rate, seed=SEED)
        yield row("healthy", name, not report.problems, report)


def row(group: str, name: str, right: bool, report: diagnose.Report) -> Row:
    """The row of a set-up."""
    if not report.problems:
        return Row(group, name, right, "", "fine")
    first = report.problems[0]
    return Row(group, name, right, f"`{first.check}`: {first.problem.kind}", first.problem.verdict)


def most(wrong: int, of: int) -> float:
    """The largest rate at which no more than `wrong` of so many happen in 2.5 % of all cases.

    >>> round(most(0, 50), 3), round(most(1, 40), 3)
    (0.071, 0.132)
    """
    from scipy.stats import beta

    return float(beta.ppf(0.975, wrong + 1, of - wrong)) if wrong < of else 1.0


def page(rows: Iterable[Row]) -> str:
    """The page of these rows."""
    rows = list(rows)
    broken, healthy = ([r for r in rows if r.group == group] for group in ("broken", "healthy"))
    missed, alarms = (sum(not r.right for r in part) for part in (broken, healthy))
    text = HEAD.format(
        seed=SEED,
        broken=len(broken),
        healthy=len(healthy),
        missed=missed,
        alarms=alarms,
        missed_rate=missed / len(broken),
        alarm_rate=alarms / len(healthy),
        missed_most=most(missed, len(broken)),
        alarm_most=most(alarms, len(healthy)),
    )
    for title, part in (("Broken", broken), ("Healthy", healthy)):
        text += f"\n## {title}\n\n| set-up | said first | verdict | right |\n|---|---|---|---|\n"
        for r in part:
            text += f"| {r.name} | {r.said} | {r.verdict} | {'yes' if r.right else '**no**'} |\n"
    return f"{text}\n{LIMITS}"


if __name__ == "__main__":
    (ROOT / "docs" / "check.md").write_text(page(checked()))

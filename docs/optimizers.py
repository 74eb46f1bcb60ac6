"""Writes optimizers.md beside it from the docstrings: `python docs/optimizers.py`."""

from __future__ import annotations

import inspect
import pathlib
import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jdl import optim
from jdl.optim.names import OPTIMIZERS

SOLVERS = """\
## How solvers end

`minimize` and `least_squares` return a `Result` whose `status` is one of these.

| status | what it means | what to do |
|---|---|---|
| 0 `CONVERGED` | The gradient is 0, or within `gradient_tolerance`; or the next step would \
lower the \
value by nothing that counts; or a step lowered it by less than `value_tolerance`. | Nothing. |
| 1 `MAX_ITERATIONS` | `max_iterations` steps were taken before that. | Raise it, or go on from \
`result.params`; where the value hardly falls any more, scale the parameters to sizes of about 1 \
or \
take a second-order method. |
| 2 `LINE_SEARCH_FAILED` | No lower point was found, not even along the negative gradient; with \
Levenberg-Marquardt, 40 trial points in a row were rejected. | Where the value is as low as the \
dtype can tell, nothing, or `float64`; else check the gradient (`jax.test_util.check_grads`) and \
look for kinks and noise in the objective. |
| 3 `NOT_FINITE` | The value or the gradient is NaN or infinite at `x0`; with an `Optimizer`, \
after \
any of its steps. | Start elsewhere; look for logarithms, roots and divisions at 0; for an \
`Optimizer`, lower its rate. |
| 4 `STALLED` | Neither value nor gradient has improved for 20 steps; with Levenberg-Marquardt, \
the \
step vanishes in the rounding of the parameters. | As for 2: the precision of the dtype is \
reached. |

| method | `iterations` counts | `evaluations` counts | what it does not count | statuses |
|---|---|---|---|---|
| `lbfgs`, `bfgs` | accepted line searches | values with gradients, the start and every trial \
point \
included | nothing | 0 to 4 |
| `newton` | accepted line searches | the same | a Hessian for each iteration | 0 to 4 |
| `newton_cg` | accepted line searches | the same | products of the Hessian with vectors, at most \
twice the parameters for each iteration | 0 to 4 |
| `gauss_newton` | accepted line searches | the same | a Jacobian for each iteration | 0 to 4 |
| `levenberg_marquardt` | accepted trial points | residuals with their Jacobian, the start and \
rejected trial points included | nothing | 0 to 4 |
| an `Optimizer` | its updates | values with gradients, one for each update and one at the end | \
what \
its own line search evaluates (`state.evaluations`) | 0, 1, 3 |
"""
PAGE = pathlib.Path(__file__).parent / "optimizers.md"
TRANSFORMS = """add_decayed_weights clip clip_by_global_norm clip_by_block_rms adaptive_grad_clip
centralize normalize_by_update_norm add_noise ema scale zero_nans apply_if_finite accumulate
lookahead sam partition masked freeze parameter_ema swa polyak_average"""
SCHEDULES = """constant_schedule linear_schedule polynomial_schedule step_decay exponential_decay
natural_exponential_decay inverse_time_decay inverse_sqrt_schedule cosine_decay_schedule warmup
warmup_constant_schedule warmup_cosine_decay_schedule warmup_exponential_decay_schedule wsd_schedule
join_schedules piecewise_constant_schedule piecewise_interpolate_schedule linear_onecycle_schedule
cosine_onecycle_schedule sgdr_schedule cosine_restarts cyclic_schedule sutskever_momentum plateau"""
INTRODUCTION = """\
# Optimizers, transforms and schedules

Made from the docstrings by `python docs/optimizers.py`. `g` is the gradient, `w` the parameter,
`lr` or `learning_rate` the rate, `t` the step counted from 1; a schedule is called with the step
counted from 0. Every number may be traced, so each may differ from lane to lane of a `vmap`, and
every number of an optimizer may be a schedule. Moments are float32 or wider unless asked
otherwise. "State" is how many numbers are kept for each parameter of a 64 x 32 matrix.
"""


def paragraphs(function: Callable[..., Any]) -> list[str]:
    """The paragraphs of a docstring, without its examples; indented ones stay so."""
    text = inspect.getdoc(function) or ""
    return [part for part in re.split(r"\n\s*\n", text) if not part.lstrip().startswith(">>>")]


def formula(function: Callable[..., Any]) -> str:
    """The first paragraph that is a formula, indented or in backticks; else the first sentence."""
    for part in paragraphs(function)[1:]:
        if part.startswith("Args:"):
            break
        in_backticks = re.findall(r"`([^`]+)`", part)
        if part.startswith("    "):
            lines = textwrap.dedent(part).splitlines()
        elif in_backticks and not re.sub(r"`[^`]+`|[\s.;,]", "", part):
            lines = [line for code in in_backticks for line in code.split("; ")]
        else:
            continue
        lines = [re.sub(r"\s{2,}", "   ", line.strip()) for line in lines if line.strip()]
        return "<br>".join(f"`{line}`" for line in lines).replace("|", "\\|")
    return re.sub(r"\s+", " ", paragraphs(function)[0]).replace("|", "\\|")


def remarks(function: Callable[..., Any]) -> str:
    """What the docstring says of other libraries, and the source."""
    sections = ("Args:", "Returns:", "Raises:", "Attributes:")
    plain = [
        re.sub(r"\s+", " ", part)
        for part in paragraphs(function)[1:]
        if not part.startswith((*sections, " ", "`"))
    ]
    returns = [part for part in paragraphs(function) if part.startswith("Returns:")]
    plain += [re.sub(r"\s+", " ", part.partition("\n")[2]).strip() for part in returns]
    sentences = [s for part in plain for s in re.split(r"(?<=[a-z`)\]\d])\. (?=[A-Z`])", part)]
    told = [s.rstrip(".") + "." for s in sentences if re.search(r"optax|torch|\b(19|20)\d\d\b", s)]
    return " ".join(told).replace("|", "\\|")


def defaults(function: Callable[..., Any]) -> str:
    """The arguments with their defaults; a bare name is required."""
    shown = []
    for parameter in inspect.signature(function).parameters.values():
        default = parameter.default
        if default is inspect.Parameter.empty:
            shown.append(f"`{parameter.name}`")
        elif isinstance(default, int | float | str | tuple | type(None)):
            shown.append(f"`{parameter.name}={default!r}`")
        else:
            shown.append(f"`{parameter.name}=...`")
    return ", ".join(shown)


def state_size(make: Callable[..., Any]) -> str:
    """Numbers in the state for each parameter of a 64 x 32 matrix."""
    known = {"learning_rate": 0.1, "key": jax.random.key(0)}
    arguments = inspect.signature(make).parameters
    optimizer = make(**{name: value for name, value in known.items() if name in arguments})
    state = jax.eval_shape(optimizer.init, {"kernel": jnp.ones((64, 32))})
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim) / (64 * 32)
    return f"{numbers:.2f}".rstrip("0").rstrip(".")


def table(names: Iterable[str], columns: dict[str, Callable[..., str]]) -> str:
    """A markdown table of what each column says of each name."""
    lines = ["| name | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name in names:
        function = getattr(optim, name)
        cells = [column(function) for column in columns.values()]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    told = {"arguments": defaults, "source, and where it differs": remarks}
    return "\n".join(
        [
            INTRODUCTION,
            "## Optimizers\n",
            table(OPTIMIZERS, {"update": formula, "state": state_size, **told}),
            "## Transforms and wrappers\n",
            table(TRANSFORMS.split(), {"what it does": formula, **told}),
            "## Schedules\n",
            table(SCHEDULES.split(), {"value": formula, **told}),
            SOLVERS,
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page())

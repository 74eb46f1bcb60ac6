"""A report as one HTML page that needs nothing else: a table to sort and filter, and pictures."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
import pathlib
from typing import Any

from jdl._paths import expanded
from jdl.engine.events import DONE
from jdl.plot.report import report_figures
from jdl.sweep import Results
from jdl.sweep.points import words
from jdl.sweep.results import format_value

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --faint: #666; --line: #ddd;
  --head: #f3f3f3; --mark: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #16181b; --faint: #a5a5a5;
  --line: #3a3d42; --head: #23262b; --mark: #56b4e9; } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 1.5rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .3rem; } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem; }
p { margin: .3rem 0; } .faint { color: var(--faint); }
figure { margin: 0 0 1rem; } figcaption { color: var(--faint); font-size: .9rem; }
img { max-width: 100%; background: #fff; border-radius: 4px; padding: 6px; box-sizing: border-box; }
.scroll { overflow: auto; max-height: 32rem; border: 1px solid var(--line); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th { position: sticky; top: 0; background: var(--head); padding: 0; text-align: right; }
th button { font: inherit; font-weight: 600; color: inherit; background: none; border: 0;
  padding: .35rem .6rem; width: 100%; text-align: inherit; cursor: pointer; white-space: nowrap; }
th button::after { content: " ↕"; color: var(--faint); }
th[aria-sort=ascending] button::after { content: " ↑"; color: var(--mark); }
th[aria-sort=descending] button::after { content: " ↓"; color: var(--mark); }
td { padding: .2rem .6rem; border-top: 1px solid var(--line); text-align: right;
  white-space: nowrap; }
th.text, td.text { text-align: left; }
:focus-visible { outline: 2px solid var(--mark); outline-offset: -2px; }
input { font: inherit; padding: .3rem .5rem; margin: .4rem 0; min-width: 16rem; color: inherit;
  background: var(--paper); border: 1px solid var(--faint); border-radius: 4px; }
@media print { .scroll { max-height: none; } input { display: none; } }
"""

# The rows are data, and the page draws those that it shows: ten thousand trials stay quick.
_SCRIPT = """
const data = JSON.parse(document.getElementById('data').textContent);
const body = document.querySelector('tbody'), count = document.getElementById('count');
const heads = [...document.querySelectorAll('th')], box = document.getElementById('filter');
let by = data.sorted, down = data.down, most = 1000;
function compare(a, b) {
  const x = a[by], y = b[by];
  if (x === null || y === null) return (x === null) - (y === null);
  const sign = down ? -1 : 1;
  return sign * (typeof x === 'number' && typeof y === 'number'
    ? x - y : String(x).localeCompare(String(y)));
}
function text(v) {
  if (v === null) return '-';
  return typeof v === 'number' && !Number.isInteger(v) ? String(+v.toPrecision(4)) : String(v);
}
function draw() {
  const words = box.value.toLowerCase().split(/\\s+/).filter(Boolean);
  const rows = data.rows.filter(r => {
    const line = data.columns.map((c, i) => c + '=' + text(r[i])).join(' ').toLowerCase();
    return words.every(w => line.includes(w));
  }).sort(compare);
  body.replaceChildren(...rows.slice(0, most).map(r => {
    const tr = document.createElement('tr');
    r.forEach((v, i) => {
      const td = document.createElement('td');
      td.textContent = text(v);
      if (data.text[i]) td.className = 'text';
      tr.append(td);
    });
    return tr;
  }));
  const more = rows.length > most ? ', the first ' + most + ' shown' : '';
  count.textContent = rows.length + ' of ' + data.rows.length + ' trials' + more;
  heads.forEach((h, i) => i === by
    ? h.setAttribute('aria-sort', down ? 'descending' : 'ascending')
    : h.removeAttribute('aria-sort'));
}
heads.forEach((h, i) => h.firstChild.addEventListener('click', () => {
  down = i === by ? !down : false; by = i; draw();
}));
box.addEventListener('input', draw);
draw();
"""


def write_report(
    results: Results, folder: str | os.PathLike[str], metric: str | None = None
) -> list[pathlib.Path]:
    """Writes `report.html` and each of its pictures as a PNG.

    Args:
      results: of a sweep, finished or running.
      folder: made if it is not there.
      metric: what the pictures show; what trials are judged by, if not given.

    Returns:
      The files: the page first.

    Raises:
      ModuleNotFoundError: matplotlib is not installed.
    """
    where = expanded(folder)
    drawn = report_figures(results, metric)
    pictures = {name: (png(figure), text) for name, (figure, text) in drawn.items()}
    where.mkdir(parents=True, exist_ok=True)
    title = pathlib.Path(results.folder or where).resolve().name
    files = [where / "report.html"]
    files[0].write_text(page(results, pictures, f"Sweep {title}"), encoding="utf-8")
    for name, (content, _) in pictures.items():
        files.append(where / f"{name}.png")
        files[-1].write_bytes(content)
    return files


def page(results: Results, pictures: dict[str, tuple[bytes, str]], title: str) -> str:
    """The text of a report's page.

    Args:
      results: of a sweep, finished or running.
      pictures: PNG bytes and a sentence, by name.
      title: of the page.
    """
    columns = {
        name: values
        for name, values in _columns(results).items()
        if name in ("trial", "status", "steps") or any(repr(v) != repr(values[0]) for v in values)
    }
    names = list(columns)
    rows = [[_plain(value) for value in row] for row in zip(*columns.values())]
    texts = [any(isinstance(value, str) for value in columns[name]) for name in names]
    judged = names.index(results.metric) if results.metric in names else 0
    data = {
        "columns": names,
        "rows": rows,
        "text": texts,
        "sorted": judged,
        "down": judged > 0 and results.goal.sign > 0,
    }
    heads = "".join(
        f'<th scope="col"{" class=text" if text else ""}><button type="button">'
        f"{html.escape(name)}</button></th>"
        for name, text in zip(names, texts)
    )
    figures = "".join(
        f"<h2>{html.escape(name.capitalize())}</h2><figure>"
        f'<img alt="{html.escape(text)}" src="data:image/png;base64,'
        f'{base64.b64encode(png).decode()}"><figcaption>{html.escape(text)}</figcaption></figure>'
        for name, (png, text) in pictures.items()
    )
    # A "</script>" inside a name must not end the element that holds it.
    inlined = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}'
        '</title><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main><h1>{html.escape(title)}</h1>"
        f"{''.join(f'<p>{html.escape(line)}</p>' for line in _summary(results))}"
        '<h2>Trials</h2><label>Filter <input id="filter" type="search" '
        'placeholder="adam status=done"></label> <span id="count" class="faint" '
        'aria-live="polite"></span><div class="scroll" tabindex="0" role="region" '
        f'aria-label="All trials"><table><thead><tr>{heads}</tr></thead><tbody></tbody></table>'
        f"</div>{figures}</main>"
        f'<script type="application/json" id="data">{inlined}</script>'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _columns(results: Results) -> dict[str, list[Any]]:
    columns = results.columns()
    return columns | {"status": [results.says(status) for status in columns["status"]]}


def png(figure: Any) -> bytes:
    """A figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    return buffer.getvalue()


def _plain(value: Any) -> Any:
    """A cell as JSON holds it; null for what is not there or not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    exact = not isinstance(value, int) or abs(value) <= 2**53  # what JavaScript holds
    if value is None or (isinstance(value, str | int | float) and exact):
        return str(value) if isinstance(value, bool) else value
    return str(value)


def _summary(results: Results) -> list[str]:
    states = ("done", "diverged", "stopped", "running", "pending")
    counts = [f"{n:,} {results.says(state)}" for state in states if (n := results.count(state))]
    total = len(results.trials)
    lines = [f"{total:,} trial{'s' * (total != 1)}: {', '.join(counts)}."]
    if any(t.status == DONE and results.score(t) > -math.inf for t in results.trials):
        best = results.best
        config = ", ".join(f"{name} {format_value(v)}" for name, v in best.config.items())
        value = format_value(best.metrics[results.metric])
        lines.append(f"Best {words(results.metric)}: {value}, trial {best.trial} ({config}).")
    spec = results.specification
    how = [f"{spec[key]} {key}" for key in ("search", "stopping", "population") if spec.get(key)]
    how.append(f"{spec['steps']:,} training steps a trial")
    return [*lines, f"{', '.join(how)}."]

"""A report as one HTML file that needs nothing else, and as Markdown."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import pandas as pd

from experiments.reporting.published import Published
from experiments.reporting.tables import markdown

HOW_TO_READ = (
    "Accuracy is right answers of n, in %, with Wilson's 95 % interval; samples that failed are not in n. Runs that "
    "differ in their seed alone are pooled. Differences are between answers to the same n questions, in percentage "
    "points, with a 95 % interval from a bootstrap over videos, and McNemar's exact p. Wilson's interval and McNemar's "
    "p take questions as independent, which several about one video are not quite: where p and the bootstrap disagree, "
    "trust the bootstrap. Where many differences are "
    "tested, some are small by chance alone: p is not corrected for that. Tokens are means and seconds medians per "
    "question; times of jobs that shared a machine are those of a busy machine."
)
NOT_OURS = "Published figures of other models, not measured here"


@dataclass(frozen=True)
class Section:
    """One model on one data set.

    Attributes:
        title: which.
        remark: what a reader must know about it.
        table: as text (`tables.readable`).
        pictures: caption -> PNG file.
    """

    title: str
    remark: str
    table: pd.DataFrame
    pictures: dict[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Content:
    """Everything a report says.

    Attributes:
        title: of the report.
        notes: how the tables came about.
        sections: the results.
        unused: jobs without a result, and why.
        errors: samples that failed, and why.
        published: tables of papers.
        pairs: differences between named methods, as text; empty if none were asked for.
    """

    title: str
    notes: Sequence[str]
    sections: Sequence[Section]
    unused: pd.DataFrame
    errors: pd.DataFrame
    published: Sequence[Published] = ()
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)


def html(content: Content) -> str:
    """One page with pictures, tables and script inside; nothing is fetched."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["embedded"] = _embedded
    return environment.from_string(PAGE).render(content=content, how_to_read=HOW_TO_READ, not_ours=NOT_OURS)


def markdown_page(content: Content, folder: Path) -> str:
    """The same as Markdown; pictures are links, relative to the `folder` it is written to."""
    parts = [f"# {content.title}", HOW_TO_READ, "\n".join(f"* {note}" for note in content.notes)]
    for section in content.sections:
        parts += [f"## {section.title}", section.remark, markdown(section.table)]
        parts += [
            f"![]({path.relative_to(folder).as_posix()})\n\n{caption}" for caption, path in section.pictures.items()
        ]
    if len(content.pairs):
        parts += ["## One method minus another", markdown(content.pairs)]
    if len(content.unused):
        parts += ["## Jobs without a result", markdown(content.unused)]
    if len(content.errors):
        parts += ["## Samples that failed", markdown(content.errors)]
    if content.published:
        parts.append(f"## {NOT_OURS}")
    for table in content.published:
        parts += [f"**{table.title}** ({table.source})", markdown(table.table()), table.note]
    return "\n\n".join(part for part in parts if part) + "\n"


def _embedded(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ content.title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1280px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }
p, li { max-width: 75ch; }
figure { margin: 1.5rem 0; } figure img { max-width: 100%; height: auto; } figcaption { color: #555; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; white-space: nowrap; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e2e2e2; text-align: right; background: #fff; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; }
.prose td, .prose th { text-align: left; white-space: normal; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid #0072b2; } th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
.not-ours { border: 1px solid #c9a227; background: #fffaf0; padding: 0 1rem 1rem; margin-top: 2.5rem; }
</style>
</head>
<body>
{% macro table(frame, kind="") %}
<div class="scroll"><table class="{{ kind }}">
<thead><tr>{% for name in frame.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in frame.itertuples(index=False, name=None) %}
<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
<h1>{{ content.title }}</h1>
<p>{{ how_to_read }}</p>
{% if content.notes %}
<ul>{% for note in content.notes %}<li>{{ note }}</li>{% endfor %}</ul>
{% endif %}
{% for section in content.sections %}
<h2>{{ section.title }}</h2>
{% if section.remark %}<p>{{ section.remark }}</p>{% endif %}
{% for caption, path in section.pictures.items() %}
<figure><img src="{{ path | embedded }}" alt="{{ caption }}"><figcaption>{{ caption }}</figcaption></figure>
{% endfor %}
{{ table(section.table, "sortable") }}
{% endfor %}
{% if content.pairs | length %}
<h2>One method minus another</h2>
{{ table(content.pairs, "sortable") }}
{% endif %}
{% if content.unused | length %}
<h2>Jobs without a result</h2>
{{ table(content.unused, "prose") }}
{% endif %}
{% if content.errors | length %}
<h2>Samples that failed</h2>
{{ table(content.errors, "prose") }}
{% endif %}
{% if content.published %}
<section class="not-ours"><h2>{{ not_ours }}</h2>
{% for item in content.published %}
<h3>{{ item.title }} ({{ item.source }})</h3>
{{ table(item.table()) }}
{% if item.note %}<p>{{ item.note }}</p>{% endif %}
{% endfor %}
</section>
{% endif %}
<script>
// A click on a heading sorts by it: by the first number in each cell where there is one, else by text.
for (const table of document.querySelectorAll("table.sortable")) {
  const number = text => parseFloat(text.replace("−", "-").replace(/^[^0-9.+-]*/, ""));
  table.querySelectorAll("th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = heading.ariaSort !== "descending";
      table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map(row => [row.cells[column].textContent, row]);
      const value = text => column && !isNaN(number(text)) ? number(text) : -Infinity;
      rows.sort(([a], [b]) => (value(a) - value(b) || a.localeCompare(b)) * (down ? -1 : 1));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
}
</script>
</body>
</html>
"""

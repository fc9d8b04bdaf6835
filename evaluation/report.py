"""The figures as files: a page that needs nothing else, Markdown, and JSON."""

from __future__ import annotations

from html import escape
from pathlib import Path

from contract.errors import SetupError
from evaluation import charts
from evaluation.prequential import METRICS
from evaluation.results import Result
from evaluation.table import EXPLORED, METRIC_NAMES, Rows, all_tables, markdown

CATEGORIES = 12
NOTES = {
    "accuracy": "Each request is scored before anything is learned from it or from what came later. "
    "Means over requests.",
    "against": "Paired differences: an interval on one side of 0 is a difference that more of the same data would "
    "show again.",
    "slices": "Means over the requests of each slice; how many there are stands beside its name. "
    "The age is that of the newest article clicked, since the data first showed it. A user's "
    "group is the one that the log names, else the category that they read most; the gap is between the groups served "
    "best and worst.",
    "off policy": "Places that were given by chance, with the probability that the log names: how often would they "
    "have been clicked, had a model drawn evenly among the fifth of the candidates that it scores highest? IPS "
    "(Horvitz and Thompson) and SNIPS (Swaminathan and Joachims), bootstrapped over users. With an effective sample "
    "below 30 (!) the figures are not to be believed.",
    "calibration": "Of the models whose scores are probabilities. An item counts as recommended where its probability "
    "reaches the threshold that had the largest F1 on all requests before.",
    "beyond": "Of the first ten of each list. Coverage: the share of articles on offer that came into any list. "
    "Diversity: 1 less the mean cosine of two articles. Novelty: the mean of -log2 of an article's share of all "
    "clicks so far. Category mix: how far, in bits, a list's categories are from those its reader had read.",
}


def write_report(folder: Path, result: Result) -> list[Path]:
    """Write ``report.html``, ``report.md`` and ``report.json``; return them.

    Raises :class:`SetupError` where ``folder`` cannot be written to.
    """
    texts = {
        "report.html": html_page(result),
        "report.md": f"{_title(result)}\n\n" + "\n".join(markdown(rows) for rows in all_tables(result)),
        "report.json": result.to_json().decode() + "\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"cannot write the report to {folder}: {error.strerror}") from None
    return [folder / name for name in texts]


def html_page(result: Result) -> str:
    """The page, self-contained."""
    accent = "ranker" if "ranker" in result.models else result.versus
    sections = [_accuracy(result, accent), _against(result, accent)]
    tables = list(all_tables(result))
    slices = [rows for rows in tables if " by " in rows[0][0]]
    sections.append(_section("Slices", NOTES["slices"], *(_table(rows, accent) for rows in slices)))
    sections.append(_calibration(result, [rows for rows in tables if rows[0][0] == "probabilities"], accent))
    beyond = [_table(rows, accent) for rows in tables if rows[0][0] == "first ten"]
    sections.append(_section("Beyond accuracy", NOTES["beyond"], *beyond))
    sections.append(_exposure(result, accent))
    sections.append(_off_policy(result, [rows for rows in tables if rows[0][0].startswith(EXPLORED)], accent))
    left_out = "".join(f"<li>{escape(kind)}: {count:,}</li>" for kind, count in result.left_out.items())
    if left_out:
        sections.append(_section("Left out", "Of the data set, counted while it was read.", f"<ul>{left_out}</ul>"))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(_title(result))}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{charts.STYLE.read_text()}</style></head><body>\n"
        f"<h1>{escape(result.dataset)}: {escape(result.task)}</h1>"
        f'<p class="soft">{result.requests:,} requests · {len(result.models)} models · seed {result.seed}</p>\n'
        + "\n".join(section for section in sections if section)
        + "\n</body></html>\n"
    )


def _accuracy(result: Result, accent: str) -> str:
    first = METRICS[result.task][0]
    points = {name: charts.Point(figures.metrics[first], *figures.ci[first]) for name, figures in result.models.items()}
    rows = next(all_tables(result))
    caption = f"{METRIC_NAMES[first]} with its 95% interval, bootstrapped over requests"
    return _section("Accuracy", NOTES["accuracy"], _figure(charts.intervals(points, accent=accent), caption),
                    _table(rows, accent))  # fmt: skip


def _against(result: Result, accent: str) -> str:
    figures = []
    for metric in (METRICS[result.task][0], METRICS[result.task][-1]):
        points = {
            name: charts.Point(model.versus[metric].difference, *model.versus[metric].ci)
            for name, model in result.models.items()
            if metric in model.versus
        }
        caption = f"{METRIC_NAMES[metric]} less that of {result.versus}, on the same requests, with its 95% interval"
        if points:
            figures.append(_figure(charts.intervals(points, zero=True, accent=accent), caption))
    return _section(f"Against {result.versus}", NOTES["against"], *figures) if figures else ""


def _calibration(result: Result, tables: list[Rows], accent: str) -> str:
    curves = {
        name: [(point.said, point.clicked) for point in figures.calibration.curve]
        for name, figures in result.models.items()
        if figures.calibration is not None
    }
    if not curves:
        return ""
    plot = _figure(charts.reliability(curves), f"Reliability, bins of equal mass: {_key(list(curves))}")
    return _section("Probabilities", NOTES["calibration"], plot, *(_table(rows, accent) for rows in tables))


def _exposure(result: Result, accent: str) -> str:
    names = [name for name in dict.fromkeys((accent, result.versus, "popular", "random")) if name in result.models]
    lists = [beyond.exposure for name in names if (beyond := result.models[name].beyond) is not None]
    if not result.catalogue or len(lists) != len(names):
        return ""
    rows = {
        category: [share, *(exposure.get(category, 0.0) for exposure in lists)]
        for category, share in list(result.catalogue.items())[:CATEGORIES]
    }
    caption = f"Share of each category in {_key(['what was on offer', *(f'the lists of {name}' for name in names)])}"
    return _section("Exposure", "", _figure(charts.shares(rows), caption))


def _off_policy(result: Result, tables: list[Rows], accent: str) -> str:
    found = result.off_policy
    if found is None:
        return ""
    points = {name: charts.Point(model.snips, *model.snips_ci) for name, model in found.models.items()}
    caption = (
        f"SNIPS with its 95% interval, from {found.explored:,} explored places of {found.users:,} users; "
        f"{found.candidates:.0f} could have been drawn on average; weights are cut to {found.clip:.1f}"
    )
    plot = _figure(charts.intervals(points, accent=accent), caption)
    return _section("Explored places", NOTES["off policy"], plot, *(_table(rows, accent) for rows in tables))


def _section(title: str, note: str, *parts: str) -> str:
    told = f"<p>{escape(note)}</p>" if note else ""
    return f"<section><h2>{escape(title)}</h2>{told}{''.join(parts)}</section>"


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _key(names: list[str]) -> str:
    keys = [f'<span class="key line-{n % charts.LINES}">■ {escape(name)}</span>' for n, name in enumerate(names)]
    return ", ".join(keys)


def _table(rows: Rows, accent: str) -> str:
    heads = "".join(f"<th>{escape(head)}</th>" for head in rows[0])
    lines = []
    for row in rows[1]:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row)
        lines.append(f'<tr class="accent">{cells}</tr>' if row[0] == accent else f"<tr>{cells}</tr>")
    return f'<div class="table"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _title(result: Result) -> str:
    return f"{result.dataset}: {result.task}, {result.requests:,} requests"

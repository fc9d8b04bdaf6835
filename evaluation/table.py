"""The figures as a table: on a terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from evaluation.off_policy import FEW
from evaluation.prequential import METRICS
from evaluation.results import USER_GROUP, Result

METRIC_NAMES = {
    "auc": "AUC", "mrr": "MRR", "ndcg@5": "nDCG@5", "ndcg@10": "nDCG@10", "hr@10": "HR@10", "mrr@10": "MRR@10",
}  # fmt: skip
EXPLORED = "CTR of explored places"
Rows = tuple[list[str], list[list[str]]]
"""Heads, and the cells of each row."""


def accuracy(result: Result) -> Rows:
    """Each model's metrics."""
    metrics = METRICS[result.task]
    rows = [[name, *(f"{figures.metrics[m]:.4f}" for m in metrics)] for name, figures in result.models.items()]
    return ["model", *(METRIC_NAMES[metric] for metric in metrics)], rows


def intervals(result: Result) -> Rows:
    """The intervals of the first metric and the last, and the differences to the model that all are held against."""
    metrics = METRICS[result.task][0], METRICS[result.task][-1]
    heads = ["95% intervals"]
    for metric in metrics:
        heads += [METRIC_NAMES[metric], f"less {result.versus}"][: 2 if result.versus else 1]
    rows = []
    for name, figures in result.models.items():
        cells = [name]
        for metric in metrics:
            low, high = figures.ci[metric]
            cells.append(f"{low:.3f}..{high:.3f}")
            against = figures.versus.get(metric)
            if against is not None:
                cells.append(f"{against.difference:+.4f} ({against.ci[0]:+.4f}..{against.ci[1]:+.4f})")
            elif result.versus:
                cells.append("")
        rows.append(cells)
    return heads, rows


def slices(result: Result, kind: str) -> Rows:
    """Each model's first metric in the slices of one kind."""
    metric = METRICS[result.task][0]
    labels = [label for label, count in result.slices[kind].items() if count]
    heads = [f"{METRIC_NAMES[metric]} by {kind}", *(f"{label} ({result.slices[kind][label]:,})" for label in labels)]
    rows = [
        [name, *(f"{figures.slices[kind][label][metric]:.4f}" for label in labels)]
        for name, figures in result.models.items()
    ]
    if kind == USER_GROUP:
        heads.append("gap")
        for row, figures in zip(rows, result.models.values(), strict=True):
            gap = figures.gap
            row.append("" if gap is None else f"{gap.gap:.4f} ({gap.ci[0]:+.3f}..{gap.ci[1]:+.3f})")
    return heads, rows


def beyond(result: Result) -> Rows:
    """What the lists are like."""
    heads = ["first ten", "coverage", "diversity", "novelty, bits", "age, h", "category mix, bits"]
    rows = []
    for name, figures in result.models.items():
        found = figures.beyond
        if found is not None:
            cells = (found.coverage, found.diversity, found.novelty, found.age_hours, found.category_mix)
            rows.append([name, *("" if cell is None else f"{cell:.3f}" for cell in cells)])
    return heads, rows


def calibration(result: Result) -> Rows:
    """The models whose scores are probabilities."""
    heads = ["probabilities", "log loss", "ECE", "threshold", "precision", "recall", "accuracy"]
    rows = []
    for name, figures in result.models.items():
        found = figures.calibration
        if found is not None:
            cells = (found.log_loss, found.ece, found.threshold, found.precision, found.recall, found.accuracy)
            rows.append([name, *(f"{cell:.4f}" for cell in cells)])
    return heads, rows


def off_policy(result: Result) -> Rows:
    """What explored places would have been clicked, had a model chosen what to explore."""
    heads = [EXPLORED, "IPS", "95%", "SNIPS", "95%", "effective sample", "clipped"]
    found = result.off_policy
    if found is None:
        return heads, []
    heads[0] = f"{EXPLORED} ({found.explored:,} of {found.users:,} users)"
    ctr, ci = f"{found.ctr:.4f}", _range(found.ctr_ci)
    rows = [["as logged", ctr, ci, ctr, ci, f"{found.explored:,}", "0"]]
    for name, model in found.models.items():
        few = "!" if model.effective_sample_size < FEW else ""
        rows.append(
            [name, f"{model.ips:.4f}", _range(model.ips_ci), f"{model.snips:.4f}", _range(model.snips_ci),
             f"{model.effective_sample_size:,.0f}{few}", f"{model.clipped:,}"]
        )  # fmt: skip
    return heads, rows


def _range(ci: tuple[float, float]) -> str:
    return f"{ci[0]:.4f}..{ci[1]:.4f}"


def all_tables(result: Result) -> Iterator[Rows]:
    """Every table that has a row, without columns that say nothing."""
    kinds = [slices(result, kind) for kind in result.slices]
    for heads, rows in (
        accuracy(result),
        intervals(result),
        *kinds,
        calibration(result),
        beyond(result),
        off_policy(result),
    ):
        filled = [place for place in range(len(heads)) if any(row[place] for row in rows)]
        if len(filled) > 1:
            yield [heads[place] for place in filled], [[row[place] for place in filled] for row in rows]


def rich_table(rows: Rows) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, head in enumerate(rows[0]):
        table.add_column(head, justify="right" if place else "left", no_wrap=True)
    for row in rows[1]:
        table.add_row(*row)
    return table


def markdown(rows: Rows) -> str:
    """The same as a table in Markdown."""
    heads, cells = rows
    lines = [heads, ["---", *(["---:"] * (len(heads) - 1))], *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)

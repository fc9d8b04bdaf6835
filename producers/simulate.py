"""``produce simulate``: the newsroom publishes, the simulated users look at their real lists and click."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from contract.errors import SettingsError
from contract.settings import Settings
from producers.simulation import OnProgress, Report, Simulation
from streams.worker import Stop

__all__ = ["OnProgress", "Report", "Simulation", "progress_line", "simulate"]


def simulate(
    settings: Settings,
    *,
    users: int = 2000,
    archive: int = 1000,
    history: float = 0.0,
    clicks_per_second: float = 500.0,
    publications_per_second: float = 1.0,
    seconds: float | None = None,
    seed: int = 1,
    taste: bool = True,
    report: Path | None = None,
    on_progress: OnProgress | None = None,
    article_vectors: str | None = None,
    stop: Stop,
) -> Report:
    """Publish ``archive`` articles and ``history`` clicks per user, then run live. Blocks until the end.

    With the name of the topic ``article_vectors``, the live phase begins once the archive is embedded and
    whoever has a history has a list.
    Raises :class:`contract.errors.SetupError` where a start needs something that is not there.
    """
    if report is not None:
        _check_writable(report)
    simulation = Simulation(settings, users=users, seed=seed, taste=taste)
    try:
        simulation.publish_archive(archive)
        if history > 0:
            simulation.publish_history(history)
        if article_vectors is not None:
            simulation.wait_for_vectors(article_vectors, stop)
            if history > 0:
                simulation.wait_for_lists(stop)
        simulation.run_live(
            clicks_per_second=clicks_per_second,
            publications_per_second=publications_per_second,
            seconds=seconds,
            stop=stop,
            on_progress=on_progress,
        )
        result = simulation.report()
    finally:
        simulation.close()
    if report is not None:
        report.write_bytes(msgspec.json.format(msgspec.json.encode(result)) + b"\n")
    return result


def progress_line(figures: dict[str, Any]) -> str:
    """One line for people of what ``on_progress`` was handed."""
    return " · ".join(_described(figures))


def _described(figures: dict[str, Any]) -> Iterator[str]:
    yield f"{figures['seconds']:.0f} s"
    yield f"{figures['clicks_per_second']:.0f} clicks/s"
    yield f"{figures['events_sent']:,} events"
    yield f"{figures['articles_published']:,} articles"
    for name in ("ctr", "precision"):
        personal, popular = figures[name]["personal"], figures[name]["popular"]
        if personal is not None:
            yield f"{name} {personal:.1%} against {popular:.1%} popular"
    if (p50 := figures["event_to_list_ms"]["p50"]) is not None:
        yield f"event to list {p50} ms, p99 {figures['event_to_list_ms']['p99']} ms"


def _check_writable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise SettingsError(f"the report cannot be written to {path}: {error.strerror}") from None

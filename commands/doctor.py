"""``stoppress doctor``."""

from __future__ import annotations

import typer

from commands.wiring import model_of, settings_of


def doctor(context: typer.Context) -> None:
    """Check device, providers, versions, model, broker and topics: each is ok, or it says what to do."""
    from consumers.doctor import examine

    findings = examine(settings_of(context), lambda settings: model_of(settings)[0])
    for finding in findings:
        typer.echo(f"{'ok' if finding.ok else 'TO DO':6}{finding.about:11}{finding.says}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)

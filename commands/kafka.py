"""``stoppress kafka``: the local broker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="A real Kafka broker on this machine, for demo and tests.")

DataDir = Annotated[Path, typer.Option("--data", help="the broker's folder")]


@app.command("start")
def kafka_start(data: DataDir = Path("var/kafka"), port: Annotated[int, typer.Option(min=0, max=65535)] = 9092) -> None:
    """Start the broker in the background; its data is kept."""
    from streams.local_broker import start_detached

    status = start_detached(data, port=port)
    typer.echo(f"Kafka runs at {status.bootstrap_servers} (pid {status.pid}, log in {data}/kafka.log)")


@app.command("stop")
def kafka_stop(data: DataDir = Path("var/kafka")) -> None:
    """Stop the broker."""
    from streams.local_broker import stop

    typer.echo("stopped" if stop(data) else "it was not running")


@app.command("status")
def kafka_status(data: DataDir = Path("var/kafka")) -> None:
    """Say whether the broker runs; exit code 1 where it does not."""
    from streams.local_broker import status

    found = status(data)
    typer.echo(f"Kafka runs at {found.bootstrap_servers} (pid {found.pid})" if found else "Kafka does not run")
    if not found:
        raise typer.Exit(1)

"""The command line: every way to start something.

0 done    1 failed    2 wrong usage or settings
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from commands import (
    dead_letters,
    demo,
    doctor,
    evaluate,
    export,
    inspect,
    kafka,
    produce,
    rebuild,
    run,
    topics,
    train,
    verify,
)
from contract.errors import SetupError, StoppressError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(topics.app, name="topics")
app.add_typer(kafka.app, name="kafka")
app.add_typer(run.app, name="run")
app.add_typer(produce.app, name="produce")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(rebuild.app, name="rebuild")
app.add_typer(export.app, name="export")
app.add_typer(train.app, name="train")
app.add_typer(inspect.app, name="inspect")
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("verify")(verify.verify)
app.command("evaluate")(evaluate.evaluate)


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="a TOML file of settings")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="name=value, over file and environment")] = None,
) -> None:
    context.obj = (config, set_ or [])


def main() -> None:
    """Run the command line; mistakes end in one line on stderr, not in a traceback."""
    try:
        app()
    except StoppressError as error:
        print(f"stoppress: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        print(
            f"stoppress: the package {error.name!r} is missing; install the extra that has it (README)", file=sys.stderr
        )
        sys.exit(SetupError.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"stoppress: {error.filename}: {error.strerror}", file=sys.stderr)
        sys.exit(SetupError.exit_code)
    except Exception as error:
        kafka = sys.modules.get("confluent_kafka")
        if kafka is None or not isinstance(error, kafka.KafkaException):
            raise
        print(f"stoppress: Kafka: {error.args[0].str()}", file=sys.stderr)
        sys.exit(StoppressError.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()

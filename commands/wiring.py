"""What most commands begin with: the settings, and the parts that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from contract import settings as contract_settings
from contract.settings import Settings
from contract.topics import Topics

if TYPE_CHECKING:
    from encoders.interest import InterestModel


def settings_of(context: typer.Context, **given: object) -> Settings:
    """The settings of this call: ``given`` over ``--set``, over the environment, over the file."""
    config, pairs = context.find_root().obj
    overrides = [*pairs, *(f"{name}={value}" for name, value in given.items() if value is not None)]
    return contract_settings.load(overrides, config=config)


def model_of(settings: Settings) -> tuple[Topics, InterestModel]:
    """The generation's topics and interest model, from the encoder's manifest."""
    from encoders.interest import interest_model
    from encoders.manifest import generation_of, read_manifest

    manifest = read_manifest(settings.encoder)
    model = interest_model(settings, manifest.dims)
    return Topics(settings, generation_of(manifest, model.manifest())), model


def article_vectors_of(settings: Settings) -> str | None:
    """The topic whose vectors a producer waits for, None where no encoder says which that is."""
    return model_of(settings)[0].article_vectors if (settings.encoder / "manifest.json").exists() else None

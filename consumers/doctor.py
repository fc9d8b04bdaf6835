"""``stoppress doctor``: whether all that the workers need is here, and what to do where it is not."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version

from contract.errors import StoppressError
from contract.settings import Settings
from contract.topics import Topics
from encoders.manifest import Manifest, read_manifest
from encoders.session import check_distribution
from encoders.text import TextEncoder
from streams.admin import check_topics, describe_broker


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; ``says`` what was found, or what to do."""

    about: str
    ok: bool
    says: str


def examine(settings: Settings, topics_of: Callable[[Settings], Topics]) -> list[Finding]:
    """Look at everything in turn, also where something before it is wrong; loads and runs the encoder. Blocks.

    ``topics_of`` gives the generation's topics and raises where there is no encoder to name it.
    """
    findings = [_versions(), *_runtime(), _model(settings), _device(settings), _broker(settings)]
    if findings[-1].ok:
        findings += _topics(settings, topics_of)
    else:
        findings.append(Finding("topics", False, "not looked at: mend the broker first"))
    return findings


def _checked(about: str, look: Callable[[], str]) -> Finding:
    """What ``look`` says, or the error that it raises: those say what to do."""
    try:
        return Finding(about, True, look())
    except StoppressError as error:
        return Finding(about, False, " ".join(str(error).split()))


def _versions() -> Finding:
    names = ("stoppress", "confluent-kafka", "tokenizers", "numpy")
    listed = ", ".join(f"{name} {version(name)}" for name in names)
    return Finding("versions", True, f"Python {platform.python_version()}, {listed}, {platform.system()}")


def _runtime() -> Iterator[Finding]:
    found = _checked("runtime", lambda: f"{(name := check_distribution())} {version(name)}")
    yield found
    if found.ok:
        import onnxruntime

        names = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
        yield Finding("providers", True, ", ".join(names))


def _model(settings: Settings) -> Finding:
    return _checked("model", lambda: _described(settings, read_manifest(settings.encoder)))


def _described(settings: Settings, manifest: Manifest) -> str:
    proof = f"worst cosine {manifest.parity.worst_cosine:.6f}" if manifest.parity else "never proven"
    return (
        f"{manifest.model} in {settings.encoder}: {manifest.dims} dimensions, {manifest.precision}, "
        f"{manifest.max_length} tokens, {proof}"
    )


def _device(settings: Settings) -> Finding:
    def look() -> str:
        encoder = TextEncoder.load(
            settings.encoder, settings.device, settings.encoder_threads, settings.encoder_batch_tokens or 0
        )
        return f"device = {settings.device} runs on {encoder.provider.removesuffix('ExecutionProvider')}"

    return _checked("device", look)


def _broker(settings: Settings) -> Finding:
    return _checked("broker", lambda: describe_broker(settings))


def _topics(settings: Settings, topics_of: Callable[[Settings], Topics]) -> list[Finding]:
    try:
        topics = topics_of(settings)
        differing = check_topics(settings, topics.specs())
    except StoppressError as error:
        return [Finding("topics", False, f"not looked at: {error}")]
    if differing:
        return [Finding("topics", False, line) for line in differing]
    return [Finding("topics", True, f"all {len(topics.specs())} of generation {topics.generation}")]

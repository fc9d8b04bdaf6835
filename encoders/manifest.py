"""The manifest beside an exported encoder: what it is, how it was proven, and the hash of every file."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

from contract.errors import EncoderUnusable, SetupError

FORMAT = 1
MANIFEST_FILE = "manifest.json"
MODEL_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
PROJECTION_FILE = "projection.npy"

_HOW_TO_BUILD = "run `make encoder` or `stoppress export encoder MODEL OUT`"


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the artifact: its size in bytes and SHA-256 in hex."""

    size: int
    sha256: str


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """The centring and PCA inside the graph: from how many texts it was learned, and what it keeps of them.

    ``neighbours_kept`` is the share of a text's ten nearest others that are still among its ten
    nearest after the projection; unknown in manifests that were written before it was measured.
    """

    dims: int
    learned_from: int
    variance_kept: float
    neighbours_kept: float | None = None


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How the exported graph compared with the torch model, as cosines of their vectors."""

    texts: int
    worst_cosine: float
    mean_cosine: float


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an encoder folder holds. ``dims`` is the width of its vectors, ``max_length`` counts tokens.

    ``prompt`` is put before every text, and with ``lower_case`` both are lowered. ``normalised`` says
    whether the model itself ends in unit rows; the graph's are unit rows either way. ``fused`` counts
    the operators that were fused, by kind. ``experimental`` says why the encoder should not serve yet, empty where
    nothing speaks against it.
    ``parity`` is None only while an export is still being proven.
    """

    model: str
    dims: int
    max_length: int
    pooling: Literal["mean", "cls", "last"]
    normalised: bool
    precision: Literal["fp32", "fp16"]
    files: dict[str, File]
    packages: dict[str, str]
    prompt: str = ""
    lower_case: bool = False
    fused: dict[str, int] = {}
    projection: Projection | None = None
    parity: Parity | None = None
    experimental: str = ""
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """SHA-256 in hex over all that defines the vectors; the versions of packages and the parity figures do not."""
        defining: dict[str, Any] = {
            "dims": self.dims,
            "lower_case": self.lower_case,
            "files": {name: file.sha256 for name, file in self.files.items()},
            "max_length": self.max_length,
            "prompt": self.prompt.lower() if self.lower_case else self.prompt,
        }
        return _digest(defining)


def generation_of(encoder: Manifest, interest: dict[str, object]) -> str:
    """Name the generation: 8 hex digits that change with the article encoder or the interest model.

    ``interest`` is whatever defines the interest model, as plain JSON values.
    """
    return _digest({"encoder": encoder.digest, "interest": interest})[:8]


def describe_file(path: Path) -> File:
    """Read ``path`` once and return its entry for a manifest."""
    with path.open("rb") as stream:
        return File(size=path.stat().st_size, sha256=hashlib.file_digest(stream, "sha256").hexdigest())


def check_file(path: Path, expected: File, unusable: type[SetupError], how: str) -> None:
    """Raise ``unusable``, with ``how`` to mend it, unless ``path`` is the file that a manifest describes."""
    try:
        matches = path.stat().st_size == expected.size and describe_file(path) == expected
    except OSError as error:
        raise unusable(f"{path} cannot be read ({error.strerror}): {how}") from None
    if not matches:
        raise unusable(f"{path} is not the file that its manifest describes: {how}")


def write_manifest(folder: Path, manifest: msgspec.Struct) -> None:
    """Write ``folder``/manifest.json, indented, keys in a stable order."""
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest, order="sorted")) + b"\n")


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of the encoder folder ``path`` and check every file against it (hashes ~90 MB: 0.1 to 0.3 s).

    Raises :class:`EncoderUnusable` where there is no encoder, the manifest cannot be read, or a
    file is missing or is not the one that the manifest describes.
    """
    try:
        manifest = msgspec.json.decode((path / MANIFEST_FILE).read_bytes(), type=Manifest)
    except OSError:
        raise EncoderUnusable(f"no encoder at {path}: {_HOW_TO_BUILD}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EncoderUnusable(f"{path / MANIFEST_FILE} is not a manifest ({error}): {_HOW_TO_BUILD}") from None
    if manifest.format > FORMAT:
        raise EncoderUnusable(
            f"{path} has format {manifest.format}, this stoppress reads up to {FORMAT}: update it or {_HOW_TO_BUILD}"
        )
    for name in (MODEL_FILE, TOKENIZER_FILE):
        if name not in manifest.files:
            raise EncoderUnusable(f"{path / MANIFEST_FILE} names no {name}: {_HOW_TO_BUILD}")
    for name, expected in manifest.files.items():
        if Path(name).name != name:
            raise EncoderUnusable(f"{path / MANIFEST_FILE} names {name!r}, which is not a file in its own folder")
        check_file(path / name, expected, EncoderUnusable, _HOW_TO_BUILD)
    return manifest


def _digest(plain: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()

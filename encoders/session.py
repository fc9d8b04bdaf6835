"""An ONNX Runtime session on the device that was asked for, or an error that says what is missing."""

from __future__ import annotations

import ctypes
import os
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from contract.errors import EncoderUnusable

if TYPE_CHECKING:
    import onnxruntime as ort

Device = Literal["auto", "cpu", "cuda"]
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"


def open_session(model: Path, device: Device = "auto", threads: int = 0) -> ort.InferenceSession:
    """Open ``model``; ``session.get_providers()[0]`` is the provider that runs it.

    ``auto`` takes CUDA where it works, else the CPU. ``threads`` 0 means one per core this process
    may use. Raises :class:`EncoderUnusable` where ONNX Runtime is missing or installed twice, the
    model cannot be loaded, or ``cuda`` was asked for and does not work.
    """
    _check_distribution()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # Spinning halves the latency of a lone text after a pause (8 against 16 ms on two cores, batches are the same)
    # but burns two to four times the processor time, which a broker on the same machine needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    has_cuda = CUDA in ort.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise EncoderUnusable(
            "device = cuda, but the installed onnxruntime has none: use an environment with stoppress[gpu], not [cpu]"
        )
    use_cuda = has_cuda and device != "cpu"
    if use_cuda:
        ort.preload_dlls()
    try:
        session = ort.InferenceSession(str(model), options, providers=[CUDA, CPU] if use_cuda else [CPU])
    except Exception as error:  # noqa: BLE001  ONNX Runtime's errors have no base class of their own
        raise EncoderUnusable(f"ONNX Runtime cannot load {model}: {str(error).splitlines()[0]}") from None
    if device == "cuda" and session.get_providers()[0] != CUDA:
        missing = _what_cuda_lacks(Path(ort.__file__).parent)
        raise EncoderUnusable(f"device = cuda, but CUDA does not work here: {missing}")
    return session


def _check_distribution() -> None:
    installed = sorted(set(packages_distributions().get("onnxruntime", [])))
    if not installed:
        raise EncoderUnusable("onnxruntime is not installed: install stoppress[cpu] or stoppress[gpu]")
    if len(installed) > 1:
        raise EncoderUnusable(
            f"{' and '.join(installed)} are installed over each other: "
            "make a new environment with stoppress[cpu] or stoppress[gpu], never both"
        )


def _what_cuda_lacks(package: Path) -> str:
    """Name the library that the loader misses: asking for CUDA never raises, it only runs on the CPU."""
    for library in ("libcuda.so.1", str(package / "capi" / "libonnxruntime_providers_cuda.so")):
        try:
            ctypes.CDLL(library)
        except OSError as error:
            return str(error)
    return "the driver found no usable GPU; see nvidia-smi"

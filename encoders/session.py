"""An ONNX Runtime session on the device that was asked for, or an error that says what is missing."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from contract.errors import EncoderUnusable

if TYPE_CHECKING:
    import onnxruntime as ort

Device = Literal["auto", "cpu", "cuda"]
CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

_log = logging.getLogger("stoppress.encoder")


class Session:
    """An open model. Arrays go in and out by IO binding: on a GPU they are copied once each way."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self.provider: str = session.get_providers()[0]
        self._device = "cuda" if self.provider == CUDA else "cpu"
        self.inputs: frozenset[str] = frozenset(node.name for node in session.get_inputs())
        self.outputs: dict[str, Any] = {node.name: node.shape[-1] for node in session.get_outputs() if node.shape}

    def run(self, output: str, feed: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Return ``output`` for the inputs ``feed``; blocks."""
        from onnxruntime import OrtValue

        binding = self._session.io_binding()
        for name, array in feed.items():
            binding.bind_ortvalue_input(name, OrtValue.ortvalue_from_numpy(array, self._device))
        binding.bind_output(output, self._device)
        self._session.run_with_iobinding(binding)
        result: NDArray[np.float32] = binding.get_outputs()[0].numpy()
        return result


def open_session(model: Path, device: Device = "auto", threads: int = 0) -> Session:
    """Open ``model``, and log which provider runs it.

    ``auto`` takes CUDA where it works, else the CPU. ``threads`` 0 means one per core this process
    may use. Raises :class:`EncoderUnusable` where ONNX Runtime is missing or installed twice, the
    model cannot be loaded, or ``cuda`` was asked for and does not work.
    """
    check_distribution()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # Threads that sleep between the operators of a lone text make two cores no faster than one (16 ms; 9 to 11
    # spinning); threads that go on spinning after it burn four times the processor time, which a broker here needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.enable_mem_pattern = False  # a plan is kept for every shape that comes, and no two batches are alike
    has_cuda = CUDA in ort.get_available_providers()
    if device == "cuda" and not has_cuda:
        raise EncoderUnusable(
            "device = cuda, but the installed onnxruntime has none: use an environment with stoppress[gpu], not [cpu]"
        )
    providers: list[Any] = [CPU]
    if has_cuda and device != "cpu":
        ort.preload_dlls()
        # As much as is asked for, not the next power of two: what the warm-up reserved is what it stays at.
        providers.insert(0, (CUDA, {"arena_extend_strategy": "kSameAsRequested"}))
    try:
        session = Session(ort.InferenceSession(str(model), options, providers=providers))
    except Exception as error:  # noqa: BLE001  ONNX Runtime's errors have no base class of their own
        raise EncoderUnusable(
            f"ONNX Runtime cannot load {model}: {str(error).splitlines()[0]}; export it again"
        ) from None
    lacking = "" if session.provider == CUDA or not has_cuda else what_cuda_lacks(Path(ort.__file__).parent)
    if device == "cuda" and session.provider != CUDA:
        raise EncoderUnusable(f"device = cuda, but CUDA does not work here: {lacking}")
    fields = {"provider": session.provider, "asked": device, "threads": options.intra_op_num_threads}
    if device == "auto" and lacking:
        fields["no_cuda"] = lacking
    _log.info("device", extra={"fields": fields})
    return session


def check_distribution() -> str:
    """Return the name of the one distribution that has onnxruntime; raise :class:`EncoderUnusable` otherwise."""
    installed = sorted(set(packages_distributions().get("onnxruntime", [])))
    if not installed:
        raise EncoderUnusable("onnxruntime is not installed: install stoppress[cpu] or stoppress[gpu]")
    if len(installed) > 1:
        raise EncoderUnusable(
            f"{' and '.join(installed)} are installed over each other: "
            "make a new environment with stoppress[cpu] or stoppress[gpu], never both"
        )
    return installed[0]


def what_cuda_lacks(package: Path) -> str:
    """Name the library that the loader misses: asking for CUDA never raises, it only runs on the CPU."""
    for library in ("libcuda.so.1", str(package / "capi" / "libonnxruntime_providers_cuda.so")):
        try:
            ctypes.CDLL(library)
        except OSError as error:
            return str(error)
    return "the driver found no usable GPU; see nvidia-smi"

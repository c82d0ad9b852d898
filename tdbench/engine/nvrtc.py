"""CUDA C++ to a binary for one GPU architecture, by NVRTC: the compiler that PyTorch's CUDA build brings as a library.

No CUDA toolkit is needed. Binaries are kept in the user's cache folder.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tdbench.base.environment import cache_folder
from tdbench.base.errors import UserError, cut, printable
from tdbench.base.files import whole_file

# Nothing but what the source writes as fmaf becomes a fused multiply-add; division and square root are exact, and
# subnormal numbers are kept, which are NVRTC's defaults.
OPTIONS = ("--std=c++17", "-fmad=false")
LONGEST_LOG = 300  # characters of the compiler's messages in an error


class Compiler:
    """NVRTC, as the library `library` of its C functions.

    Attributes:
        version: such as ``12.9``.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def architecture(self, capability: tuple[int, int]) -> str:
        """The best architecture it can compile for a device of that compute capability, such as ``sm_90`` for (9, 0).

        Raises:
            UserError: the device is of a generation that this NVRTC does not know, or knows no longer.
        """
        count = ctypes.c_int()
        self._call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
        numbers = (ctypes.c_int * count.value)()
        self._call("nvrtcGetSupportedArchs", numbers)
        major, minor = capability
        fitting = [number for number in numbers if number // 10 == major and number % 10 <= minor]
        if not fitting:
            raise UserError(
                f"NVRTC {self.version} cannot compile for compute capability {major}.{minor}; install a PyTorch whose "
                "CUDA version supports this GPU"
            )
        return f"sm_{max(fitting)}"

    def compile(self, source: str, architecture: str, options: tuple[str, ...] = ()) -> tuple[bytes, str]:
        """The binary, and what the compiler says.

        Raises:
            UserError: it does not compile.
        """
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"cells.cu", 0, None, None)
        try:
            every = [f"--gpu-architecture={architecture}", *OPTIONS, *options]
            arguments = (ctypes.c_char_p * len(every))(*(option.encode() for option in every))
            failed = self._library.nvrtcCompileProgram(program, len(every), arguments)
            log = self._bytes(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            if failed:
                raise UserError(f"NVRTC {self.version} cannot compile cells.cu: {cut(printable(log), LONGEST_LOG)}")
            return self._bytes(program, "CUBIN"), log
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _bytes(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        content = ctypes.create_string_buffer(size.value)
        self._call(f"nvrtcGet{what}", program, content)
        return content.raw

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status:
            raise UserError(f"{function} of NVRTC failed with error {status}")


def cached_binary(compiler: Compiler, source: str, architecture: str) -> bytes:
    """The binary of that source, compiled once for each source, architecture and version of NVRTC.

    Raises:
        UserError: it does not compile.
    """
    what = "\n".join((source, architecture, compiler.version, *OPTIONS))
    file = cache_folder() / "kernels" / f"cells-{architecture}-{hashlib.sha256(what.encode()).hexdigest()[:32]}.cubin"
    try:
        return file.read_bytes()
    except OSError:
        binary, _ = compiler.compile(source, architecture)
    try:
        with whole_file(file) as partial:
            partial.write_bytes(binary)
    except OSError:
        pass  # a folder that cannot be written to: it is compiled again next time, in about 2 seconds
    return binary


def load_compiler() -> Compiler:
    """The NVRTC of the CUDA version that torch is built for, which the driver supports; else the newest there is.

    Raises:
        UserError: there is none.
    """
    import torch

    cuda = (torch.version.cuda or "").partition(".")[0]
    names = (*map(str, _installed()), "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")
    for name in sorted(names, key=lambda name: not name.endswith(f".so.{cuda}")):
        try:
            return Compiler(ctypes.CDLL(name))
        except OSError:
            continue
    raise UserError("NVRTC cannot be found, which comes with a CUDA build of PyTorch; install that one")


def _installed() -> Iterator[Path]:
    """The libraries of NVIDIA's wheels (``nvidia/cuda_nvrtc``, from CUDA 13 on ``nvidia/cu13``), and beside torch."""
    for package, pattern in (("nvidia", "*/lib/libnvrtc.so.*"), ("torch", "lib/libnvrtc.so.*")):
        spec = importlib.util.find_spec(package)
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        yield from sorted((file for folder in folders for file in Path(folder).glob(pattern)), reverse=True)

"""The few functions of the CUDA driver that the engine `cuda` needs, with errors and memory as Python has them."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from tdbench.base.errors import UserError

_OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76  # CU_DEVICE_ATTRIBUTE_...


class CudaError(UserError):
    """The driver reports an error: of the kernel, of the GPU, or of the driver itself."""


class Driver:
    """One GPU, in the context that torch uses too.

    Args:
        library: the functions of ``libcuda``.
        index: of the device, as torch counts.

    Attributes:
        capability: compute capability, such as (9, 0).
        multiprocessors: their number.

    Raises:
        CudaError: no such device.
    """

    def __init__(self, library: Any, index: int = 0) -> None:
        self._library = library
        self._call("cuInit", ctypes.c_uint(0))
        self._device = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(self._device), ctypes.c_int(index))
        self._context = ctypes.c_void_p()
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.capability = self._attribute(_MAJOR), self._attribute(_MINOR)
        self.multiprocessors = self._attribute(_MULTIPROCESSORS)

    def use(self) -> None:
        """Make the calling thread use this GPU. To be called before anything below, by each thread."""
        self._call("cuCtxSetCurrent", self._context)

    def load(self, binary: bytes, name: str) -> ctypes.c_void_p:
        """The kernel of that name; it stays loaded until the process ends."""
        module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(binary))
        self._call("cuModuleGetFunction", ctypes.byref(kernel), module, name.encode())
        return kernel

    def free_memory(self) -> int:
        """Bytes that can still be allocated."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    @contextlib.contextmanager
    def memory(self, size: int) -> Iterator[int]:
        """The address of that many bytes on the GPU, which are freed after the block.

        Raises:
            MemoryError: there are not so many.
        """
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(1, size)))
        try:
            yield address.value
        finally:
            # It waits for kernels that still use it. After a kernel failed it fails too, and hides no earlier error.
            self._library.cuMemFree_v2(address)

    def upload(self, address: int, array: NDArray[Any]) -> None:
        """Copy a contiguous array to the GPU."""
        size, source = ctypes.c_size_t(array.nbytes), ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(address), source, size)

    def download(self, address: int, array: NDArray[Any]) -> None:
        """Fill a contiguous array from the GPU."""
        size, target = ctypes.c_size_t(array.nbytes), ctypes.c_void_p(array.ctypes.data)
        self._call("cuMemcpyDtoH_v2", target, ctypes.c_uint64(address), size)

    def launch(self, kernel: ctypes.c_void_p, blocks: int, threads: int, argument: ctypes.Structure) -> None:
        """Run a kernel of one argument, and wait for its end."""
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(argument))
        grid, block = [[ctypes.c_uint(n) for n in (count, 1, 1)] for count in (blocks, threads)]
        self._call("cuLaunchKernel", kernel, *grid, *block, ctypes.c_uint(0), None, arguments, None)
        self._call("cuCtxSynchronize")

    def _attribute(self, which: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(which), self._device)
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status == 0:
            return
        text = ctypes.c_char_p()
        self._library.cuGetErrorName(ctypes.c_int(status), ctypes.byref(text))
        name = (text.value or b"an unknown error").decode()
        if status == _OUT_OF_MEMORY:
            raise MemoryError(f"the GPU's memory does not suffice ({function}: {name})")
        raise CudaError(f"the CUDA driver reports {name} ({status}) in {function}")


def load_driver(index: int) -> Driver:
    """The driver of the GPU that torch calls ``cuda:index``.

    Raises:
        CudaError: no driver is installed, or it has no such device.
    """
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise CudaError(f"the CUDA driver cannot be loaded: {error}") from error
    return Driver(library, index)

"""A GPU without a GPU: the functions of libcuda and NVRTC, with host memory, and cells.cu compiled for the CPU."""

# ruff: noqa: N802  the names are the libraries' own

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

SHIM = Path(__file__).with_name("cells_shim.cpp")
GUARD = 64  # bytes behind each allocation, which nobody may write to
FILL = 0xFF  # memory is not zero at first; as a float this is NaN


def compiler():
    found = shutil.which("g++") or shutil.which("clang++")
    if found is None:
        pytest.skip("no C++ compiler")
    return found


def compile_kernel(folder):
    """cells.cu as a library for the CPU."""
    library = folder / "cells.so"
    options = ["-std=c++20", "-O3", "-march=native", "-ffp-contract=off", "-fno-strict-aliasing", "-Wall", "-Werror"]
    built = subprocess.run(
        [compiler(), *options, "-shared", "-fPIC", "-pthread", SHIM, "-o", library], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    kernel = ctypes.CDLL(str(library))
    kernel.cells_scratch_floats.restype = ctypes.c_longlong
    return kernel


class FakeCuda:
    """libcuda. Each thread block runs on `threads` threads, however many were asked for.

    Attributes:
        errors: from the name of a function to the error that it gives.
        launches: (blocks, threads) of each launch.
        allocated: memory that is not freed.
        binaries: what was loaded.
    """

    def __init__(self, kernel, threads=1, memory=1 << 32, capability=(9, 0)):
        self.kernel, self.threads, self.free = kernel, threads, memory
        self.attributes = {16: 2, 75: capability[0], 76: capability[1]}
        self.errors, self.allocated, self.launches, self.binaries = {}, {}, [], []

    def __getattribute__(self, name):
        found = object.__getattribute__(self, name)
        if name.startswith("cu") and name in self.errors:
            return lambda *_: self.errors[name]
        return found

    def cuInit(self, flags):
        return 0

    def cuDeviceGet(self, device, index):
        device._obj.value = index.value
        return 0 if index.value == 0 else 101

    def cuDevicePrimaryCtxRetain(self, context, device):
        context._obj.value = 1
        return 0

    def cuCtxSetCurrent(self, context):
        return 0 if context.value == 1 else 201

    def cuDeviceGetAttribute(self, value, which, device):
        value._obj.value = self.attributes[which.value]
        return 0

    def cuModuleLoadData(self, module, binary):
        self.binaries.append(binary.value)
        module._obj.value = 2
        return 0

    def cuModuleGetFunction(self, function, module, name):
        function._obj.value = 3
        return 0 if name == b"train_cells" else 500

    def cuMemGetInfo_v2(self, free, total):
        free._obj.value = total._obj.value = self.free
        return 0

    def cuMemAlloc_v2(self, address, size):
        if size.value > self.free:
            return 2
        memory = np.full(size.value + GUARD + 256, FILL, dtype=np.uint8)
        start = -memory.ctypes.data % 256
        address._obj.value = memory.ctypes.data + start
        self.allocated[address._obj.value] = memory[start : start + size.value + GUARD]
        self.free -= size.value
        return 0

    def cuMemFree_v2(self, address):
        memory = self.allocated.pop(address.value)
        assert (memory[-GUARD:] == FILL).all(), "something was written behind its memory"
        self.free += len(memory) - GUARD
        return 0

    def cuMemcpyHtoD_v2(self, target, source, size):
        assert size.value <= len(self.allocated[target.value]) - GUARD
        ctypes.memmove(target.value, source, size.value)
        return 0

    def cuMemcpyDtoH_v2(self, target, source, size):
        assert size.value <= len(self.allocated[source.value]) - GUARD
        ctypes.memmove(target, source.value, size.value)
        return 0

    def cuLaunchKernel(self, function, gx, gy, gz, bx, by, bz, shared, stream, parameters, extra):
        assert (function.value, gy.value, gz.value, by.value, bz.value) == (3, 1, 1, 1, 1)
        self.launches.append((gx.value, bx.value))
        self.kernel.cells_launch(gx.value, self.threads, parameters)
        return 0

    def cuCtxSynchronize(self):
        return 0

    def cuGetErrorName(self, status, text):
        names = {2: b"CUDA_ERROR_OUT_OF_MEMORY", 700: b"CUDA_ERROR_ILLEGAL_ADDRESS"}
        text._obj.value = names.get(status.value)
        return 0


class FakeNvrtc:
    """NVRTC, whose binaries name what was compiled. `error` is what it says of a source that does not compile."""

    def __init__(self, version=(12, 9), error=None):
        self.version, self.error, self.compiled = version, error, []

    def nvrtcVersion(self, major, minor):
        major._obj.value, minor._obj.value = self.version
        return 0

    def nvrtcGetNumSupportedArchs(self, count):
        count._obj.value = 4
        return 0

    def nvrtcGetSupportedArchs(self, numbers):
        numbers[:] = [80, 86, 90, 120]
        return 0

    def nvrtcCreateProgram(self, program, source, name, count, headers, names):
        program._obj.value, self.source = 1, source
        return 0

    def nvrtcCompileProgram(self, program, count, options):
        self.compiled.append([options[i].decode() for i in range(count)])
        return 6 if self.error else 0

    def nvrtcGetProgramLogSize(self, program, size):
        size._obj.value = len(self.error or "") + 1
        return 0

    def nvrtcGetProgramLog(self, program, log):
        log.value = (self.error or "").encode()
        return 0

    def nvrtcGetCUBINSize(self, program, size):
        size._obj.value = len(self._binary())
        return 0

    def nvrtcGetCUBIN(self, program, binary):
        binary[:] = self._binary()
        return 0

    def nvrtcDestroyProgram(self, program):
        return 0

    def _binary(self):
        return b"binary of " + self.compiled[-1][0].encode()

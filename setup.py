"""Builds the native CPU kernel, once per instruction set; everything else about the project is in pyproject.toml.

The extensions are optional: without a C++ compiler the install still succeeds, without the engine `native`.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = [
    *("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=hidden"),
    *("-Wno-uninitialized", "-Wno-maybe-uninitialized"),  # gcc 12 warns about its own AVX-512 headers
]
ISA_FLAGS = {"base": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    ISA_FLAGS["avx2"] = ["-mavx2", "-mfma", "-mbmi", "-mtune=haswell"]
    ISA_FLAGS["avx512"] = [
        *("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mbmi"),
        *("-mtune=icelake-server", "-mprefer-vector-width=512"),
    ]


class BuildLanes(build_ext):
    """Compiles the one source into a directory per extension, so that the object files do not collide."""

    def build_extension(self, ext: Extension) -> None:
        before, self.build_temp = self.build_temp, str(Path(self.build_temp) / ext.name)
        try:
            super().build_extension(ext)
        finally:
            self.build_temp = before


def extension(isa: str) -> Extension:
    return Extension(
        f"tdbench.engine._lanes_{isa}",
        sources=["tdbench/engine/lanes.cpp"],
        language="c++",
        extra_compile_args=FLAGS + ISA_FLAGS[isa],
        extra_link_args=["-pthread"] if os.name == "posix" and sys.platform != "darwin" else [],
        optional=True,
    )


setup(ext_modules=[extension(isa) for isa in ISA_FLAGS], cmdclass={"build_ext": BuildLanes})

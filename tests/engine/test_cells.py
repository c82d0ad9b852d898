"""The source of the engine `cuda`: clean under sanitizers, and what NVRTC makes of it for three generations of GPUs."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from fake_cuda import compiler

from tdbench.base.errors import UserError
from tdbench.engine.cuda import SOURCE, THREADS
from tdbench.engine.nvrtc import load_compiler

REGISTERS = 65_536 // (2 * THREADS)  # of a thread, where two blocks are on a multiprocessor
SHARED_MEMORY = 48 * 1024  # bytes that a block may have without asking, on every GPU; two fit on a multiprocessor
BARRIERS = SOURCE.read_text(encoding="utf-8").count("BARRIER();")


def run_sanitized(folder, sanitizer, source=SOURCE):
    options = ["-std=c++20", "-O1", "-g", "-ffp-contract=off", "-fno-strict-aliasing", "-march=native", "-pthread"]
    options += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", f'-DCELLS="{source}"']
    empty, program = folder / "empty.cpp", folder / "sanitize"
    empty.write_text("int main() {}")
    probe = subprocess.run([compiler(), *options, empty, "-o", folder / "empty"], capture_output=True)
    if probe.returncode != 0 or subprocess.run([folder / "empty"], capture_output=True).returncode != 0:
        pytest.skip(f"no runtime for -fsanitize={sanitizer}")
    main = Path(__file__).with_name("cells_sanitize.cpp")
    subprocess.run([compiler(), *options, main, "-o", program], check=True)
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}  # after a race, threads may wait for ever
    return subprocess.run([program], capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_the_kernel_is_clean_under_sanitizers(tmp_path, sanitizer):
    done = run_sanitized(tmp_path, sanitizer)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("which", range(BARRIERS))
def test_a_barrier_that_is_missing_is_a_race_that_the_thread_sanitizer_finds(tmp_path, which):
    parts = SOURCE.read_text(encoding="utf-8").split("BARRIER();")
    mutant = tmp_path / "cells.cu"
    mutant.write_text("BARRIER();".join(parts[: which + 1]) + ";" + "BARRIER();".join(parts[which + 1 :]))
    done = run_sanitized(tmp_path, "thread", mutant)
    assert done.returncode != 0, parts[which][-300:]
    assert "data race" in done.stderr


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_120"])
def test_nvrtc_compiles_the_kernel_without_spilling_a_register(architecture):
    try:
        nvrtc = load_compiler()
    except UserError as error:
        pytest.skip(f"{error}; the extra cuda-check has it")
    binary, log = nvrtc.compile(SOURCE.read_text(encoding="utf-8"), architecture, ("--ptxas-options=-v",))
    assert binary.startswith(b"\x7fELF")
    assert re.search(r"\b0 bytes spill stores, 0 bytes spill loads", log), log
    registers, shared = (int(re.search(pattern, log)[1]) for pattern in (r"Used (\d+) registers", r"(\d+) bytes smem"))
    assert registers <= REGISTERS
    assert shared <= SHARED_MEMORY

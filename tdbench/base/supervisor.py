"""A small process between tdbench and the process of a plugin: it ends whatever that process has started.

Run as a script, by `tdbench.base.process` alone: ``supervisor.py CHANNEL REPORT FOLDER MODULE [LOG LABEL]``. It makes
FOLDER and starts ``python -m MODULE CHANNEL`` in it, and keeps the end of what that writes to standard error. With the
file descriptor LOG all that it prints is copied there, each line after LABEL. When it ends, or when tdbench ends or
says so (SIGTERM), all of its descendants are killed, also those in sessions of their own, and FOLDER is removed. A line
of JSON is written to the file descriptor REPORT: how the process ended, and its last words.

On Linux it makes itself the parent of orphaned descendants (a subreaper); elsewhere it kills the process group.
It imports little, so that it starts in a few milliseconds.
"""

import contextlib
import json
import os
import select
import signal
import sys
import time

TAIL = 4096  # bytes of standard error that are kept
PATIENCE = 5.0  # seconds in which descendants must be gone
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    channel, report, folder, module = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    log = Log(int(sys.argv[5]), sys.argv[6]) if sys.argv[5:] else None
    try:
        _supervise(channel, report, folder, module, log)
    finally:  # tdbench removes it too, unless it was killed
        _remove(folder)


class Log:
    """The file into which all that the process prints is copied, line by line, each after the label."""

    def __init__(self, descriptor: int, label: str) -> None:
        self._descriptor, self._label, self._rest = descriptor, f"{label} | ".encode(), b""

    def add(self, part: bytes) -> None:
        *lines, self._rest = (self._rest + part).split(b"\n")
        if lines:
            with contextlib.suppress(OSError):  # a full disk is no reason to end a run
                os.write(self._descriptor, b"".join(self._label + line + b"\n" for line in lines))

    def close(self) -> None:
        if self._rest:
            self.add(b"\n")


def _supervise(channel: int, report: int, folder: str, module: str, log: "Log | None") -> None:
    parent = os.getppid()
    on_linux = sys.platform.startswith("linux")
    stop, stopping = os.pipe()
    signal.signal(signal.SIGTERM, lambda *_: os.write(stopping, b"."))  # several may come, where tdbench had threads
    if on_linux:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            return
    reading, writing = os.pipe()
    os.mkdir(folder, 0o700)  # noqa: PTH102
    child = os.fork()
    if child == 0:
        os.setsid()  # Ctrl-C is for tdbench
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if on_linux:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        nothing = os.open(os.devnull, os.O_RDWR)
        for end, descriptor in ((nothing, 0), (nothing if log is None else writing, 1), (writing, 2)):
            os.dup2(end, descriptor)
        os.closerange(3, channel)
        os.closerange(channel + 1, 256)
        os.set_inheritable(channel, True)
        os.chdir(folder)
        os.execv(sys.executable, [sys.executable, "-P", "-m", module, str(channel)])
    os.close(writing)
    os.close(channel)
    tail, status = b"", -1
    try:
        tail, status = _watch(child, reading, stop, log)
    finally:
        if log is not None:
            log.close()
        _end_descendants(child)
        if status < 0:
            with contextlib.suppress(OSError):
                status = os.waitpid(child, 0)[1]
        words = tail.decode(errors="replace")
        with contextlib.suppress(OSError):
            os.write(report, json.dumps({"status": max(status, 0), "tail": words}).encode())


def _watch(child: int, reading: int, stop: int, log: "Log | None") -> tuple[bytes, int]:
    """Read what it prints until the process has ended; what it said last, and its status, -1 where it was stopped."""
    tail, open_ends = b"", [reading]
    ended = os.pidfd_open(child) if hasattr(os, "pidfd_open") else None
    while True:
        watched = [stop, *open_ends] if ended is None else [stop, *open_ends, ended]
        ready, _, _ = select.select(watched, [], [], 0.02 if ended is None else None)
        if reading in ready:
            part = os.read(reading, 1 << 16)
            tail = _taken(tail, part, log)
            if not part:
                open_ends = []
        if stop in ready:
            while log is not None and select.select(open_ends, [], [], 0)[0] and (part := os.read(reading, 1 << 16)):
                tail = _taken(tail, part, log)
            return tail, -1
        if ended is None or ended in ready:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                while open_ends and select.select(open_ends, [], [], 0)[0] and (part := os.read(reading, 1 << 16)):
                    tail = _taken(tail, part, log)
                return tail, status


def _taken(tail: bytes, part: bytes, log: "Log | None") -> bytes:
    """The last words, once this part has been read."""
    if log is not None:
        log.add(part)
    return (tail + part)[-TAIL:]


def _end_descendants(child: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        for pid in _children():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(0.002)
        except ChildProcessError:
            return


def _remove(folder: str) -> None:
    try:
        os.rmdir(folder)  # noqa: PTH106
    except OSError:  # the plugin has put something there, or it is gone
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _children() -> list[int]:
    """Processes whose parent this one is: orphans of the plugin come here."""
    own = os.getpid()
    found: list[int] = []
    if not os.path.isdir("/proc/self"):  # noqa: PTH112 - nothing is imported without need
        return found
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat") as file:  # noqa: PTH123
                if int(file.read().rpartition(")")[2].split()[1]) == own:
                    found.append(int(name))
    return found


if __name__ == "__main__":
    main()

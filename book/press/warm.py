"""Kernels that start warm: one process imports what most notebooks import, and forks a kernel for each of them.

Two seconds of a core go into Python, IPython, torch and matplotlib before a notebook's first line runs, and nothing
in that differs from notebook to notebook. A fork has it at once, and is a process of its own: what a notebook
imports, sets or draws, the next one does not see. Nothing of the book or of its package is imported here.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path

from jupyter_client import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

# no folder of its own on the path, as in a kernel: the press's `html` would hide the library's
START = """import sys; sys.flags.safe_path or sys.path.pop(0)
import runpy; runpy.run_path(sys.argv[1], run_name="__main__")"""
READY = "ready\n"
STARTING = threading.Lock()  # two notebooks at once want one nursery
IMPORTED = ("ipykernel.kernelapp", "ipykernel.ipkernel", "numpy", "torch", "matplotlib.pyplot", "numba")


class Nursery:
    """The process that forks. It ends with the one that started it, or when it is closed."""

    def __init__(self, environment: dict[str, str]):
        self.wire, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, __file__, str(theirs.fileno())],
                env=environment, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        self.lines, self.lock = self.wire.makefile("r"), threading.Lock()
        self.can_fork = self.lines.readline() == READY

    def fork(self, words: list[str], environment: dict[str, str], folder: str) -> Forked:
        """A kernel with these command line words, this environment and this working directory."""
        with self.lock:
            self.wire.sendall(json.dumps([words, environment, folder]).encode() + b"\n")
            if not (line := self.lines.readline()):
                raise RuntimeError(f"the process that forks kernels has ended with code {self.process.wait()}")
            return Forked(int(line))  # before another request: only then may the dead be forgotten

    def close(self) -> None:
        self.lines.close()
        self.wire.close()
        self.process.wait()


class Forked:
    """A child of the nursery, with what Jupyter asks of `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, pid: int):
        self.pid, self.handle = pid, os.pidfd_open(pid)

    def poll(self) -> int | None:
        """None while it runs; how it ended, only its parent knows."""
        return 0 if select.select([self.handle], [], [], 0)[0] else None

    def wait(self) -> int:
        select.select([self.handle], [], [])
        os.close(self.handle)
        return 0

    def send_signal(self, number: int) -> None:
        signal.pidfd_send_signal(self.handle, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Provisioner(LocalProvisioner):
    """Takes kernels from the nursery."""

    async def cleanup(self, restart=False):
        await super().cleanup(restart)
        if not restart:
            self.parent.folder.cleanup()

    async def launch_kernel(self, cmd, *, env, cwd=None, **_):
        self.cwd = cwd or os.getcwd()
        self.process = nursery().fork(cmd[cmd.index("-f") :], env, str(self.cwd))
        self.pid = self.pgid = self.process.pid  # it leads a group of its own
        return self.connection_info


class WarmKernels(AsyncKernelManager):
    """Talks with its kernel through files of its own: ports that are free now may not be when the kernel takes them."""

    def __init__(self, **options):
        super().__init__(**options)
        roomy = len(tempfile.gettempdir()) < 60  # a socket's name has at most 107 letters
        self.folder = tempfile.TemporaryDirectory(prefix="kernel-", dir=None if roomy else "/tmp")
        self.transport, self.connection_file = "ipc", str(Path(self.folder.name) / "kernel.json")
        self.kernel_id = Path(self.folder.name).name
        self.provisioner = Provisioner(kernel_id=self.kernel_id, kernel_spec=self.kernel_spec, parent=self)


def manager() -> type[AsyncKernelManager]:
    """What starts kernels here: warm ones, where the system can do it."""
    if not is_possible():
        return AsyncKernelManager
    with STARTING:
        return WarmKernels if nursery().can_fork else AsyncKernelManager


def is_possible() -> bool:
    """Whether the system can tell of a process that is not our child when it ends: Linux 5.3 or newer."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


@cache
def nursery() -> Nursery:
    from .execute import ENVIRONMENT

    made = Nursery({**os.environ, **ENVIRONMENT})
    atexit.register(made.close)
    return made


# ---- the process that forks ----


def forks(wire: socket.socket) -> tuple[list[str], dict[str, str], str] | None:
    """Fork a child for each line that comes. Returns in every child, with the line, and in the parent at the end."""
    for line in wire.makefile("r"):
        with contextlib.suppress(ChildProcessError):  # bury the dead
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            os.setsid()
            wire.sendall(f"{os.getpid()}\n".encode())  # it leads its group by now
            wire.close()
            return json.loads(line)
    return None


def main(wire: socket.socket) -> None:
    mine = {"JPY_PARENT_PID": str(os.getpid())}  # when this process is gone, its kernels go; read at import
    os.environ.update(mine, MPLBACKEND=os.environ.get("MPLBACKEND") or "module://matplotlib_inline.backend_inline")
    for name in IMPORTED:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        return  # only one thread goes into a fork: where an import starts another, kernels start cold
    gc.collect()
    gc.freeze()  # what stands here is not looked through in every child, which would copy it
    wire.sendall(READY.encode())
    if (asked := forks(wire)) is None:
        return
    words, environment, folder = asked
    os.environ.clear()
    os.environ.update(environment, **mine)
    os.chdir(folder)
    sys.argv = [importlib.util.find_spec("ipykernel_launcher").origin, *words]
    sys.modules["numpy"].random.seed()  # unseeded, each draws other numbers, as if it had imported numpy itself
    importlib.import_module("ipykernel.kernelapp").launch_new_instance()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[2])))

"""Installs Kanary into the virtual environment with pip, telling sizes first and progress on the way.

Standard library only, for any Python from 3.8 on.
"""

from __future__ import annotations

import os
import platform
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from deploy.environment import ROOT, Environment, Failure, constraints

TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
TORCH_EXTRAS = {"train", "serve", "drift"}

# Megabytes to download and on disk, measured on Linux x86-64 with the versions of constraints.txt: what any of the
# extras named brings besides torch. Several extras share what is counted once here.
SIZES = (
    ({"pipelines", "train", "serve", "drift"}, 110, 460),
    ({"drift"}, 190, 790),
    ({"sandbox"}, 90, 360),
    ({"dev"}, 35, 120),
)
BASE_SIZE = (10, 80)
TORCH_CPU_SIZE = (195, 870)
TORCH_CUDA_SIZE = (2_750, 4_900)


def install(environment: Environment, extras: set[str], had: set[str], lock: int) -> None:
    """Install Kanary with `extras`, of which it has had `had`: sizes first, then progress. Raises Failure."""
    print(
        f"setup: installing kanary ({', '.join(sorted(extras)) or 'no extras'}) into {environment.folder}", flush=True
    )
    download, disk = (total - before for total, before in zip(megabytes(extras), megabytes(had) if had else (0, 0)))
    options: list[str] = []
    note = ""
    torch_there = any(environment.folder.glob("lib/python*/site-packages/torch/version.py"))
    if extras & TORCH_EXTRAS and not torch_there:
        options, cpu = choose_torch(environment)
        note = ", PyTorch for CPUs included" if cpu else ", PyTorch with CUDA included"
        torch = TORCH_CPU_SIZE if cpu else TORCH_CUDA_SIZE
        download, disk = download + torch[0], disk + torch[1]
    if download:
        print(f"setup: about {_size(download)} to download, {_size(disk)} on disk{note}", flush=True)
    free = shutil.disk_usage(environment.folder).free / 1e6
    if free < disk + download:
        raise Failure(f"only {_size(free)} are free there: make room, or set KANARY_VENV to a folder on another disk")
    target = f".[{','.join(sorted(extras))}]" if extras else "."
    run_pip(environment, ["install", *options, "--no-compile", "-c", "constraints.txt", "-e", target], lock)
    compile_modules(environment, lock)


def compile_modules(environment: Environment, lock: int) -> None:
    """Compile what is installed, on all cores: pip would do it on one. What cannot be compiled is nobody's module.

    The tests that packages bring, a third of the work, are left to whoever imports them.
    """
    print(f"setup: compiling it for Python, on {os.cpu_count()} cores", flush=True)
    folders = [str(folder) for folder in environment.folder.glob("lib/python*/site-packages")]
    command = [str(environment.python), "-I", "-m", "compileall", "-q", "-q", "-j", "0", "-x", "/tests/", *folders]
    # In a group of its own: its workers do not end with it, and would keep the lock for ever.
    compiling = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(lock,), start_new_session=True)
    try:
        compiling.wait()
    finally:
        if compiling.poll() is None:
            os.killpg(compiling.pid, signal.SIGKILL)
            compiling.wait()


def megabytes(extras: set[str]) -> tuple[int, int]:
    """What Kanary with `extras`, torch left out, weighs: to download and on disk."""
    parts = [BASE_SIZE, *((download, disk) for names, download, disk in SIZES if names & extras)]
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


def choose_torch(environment: Environment) -> tuple[list[str], bool]:
    """pip's options for torch, and whether that is the CPU build: the default Linux wheels hold gigabytes of CUDA."""
    if not sys.platform.startswith("linux"):
        return [], True
    if has_nvidia_driver():
        return [], False
    try:
        with urllib.request.urlopen(f"{TORCH_CPU_INDEX}/torch/", timeout=3):
            return ["--extra-index-url", TORCH_CPU_INDEX], True
    except (OSError, ValueError):
        pass
    if platform.machine() != "x86_64":
        return [], False
    # An index or folder of the user's own may hold a CPU build.
    command = [str(environment.python), "-I", "-m", "pip", "index", "versions", "torch"]
    known = subprocess.run(command, capture_output=True, text=True, env=pip_environment(environment)).stdout
    return [], any(f"{pin}+cpu" in known for pin in re.findall(r"^torch==([\w.]+)", constraints(), re.MULTILINE))


def has_nvidia_driver() -> bool:
    """Whether CUDA could run here, WSL2 included."""
    signs = ("/proc/driver/nvidia/version", "/usr/lib/wsl/lib/nvidia-smi")
    return any(os.path.exists(path) for path in signs) or shutil.which("nvidia-smi") is not None


def pip_environment(environment: Environment) -> dict[str, str]:
    """pip's environment: the user's, without what would lead it out of this virtual environment."""
    astray = {"PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT"}
    kept = {name: value for name, value in os.environ.items() if name not in astray}
    # The scratch folder lies beside what it becomes: /tmp is often too small for torch.
    own = {"TMPDIR": str(environment.scratch), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}
    return {**kept, **own}


def run_pip(environment: Environment, arguments: list[str], lock: int) -> None:
    """Run pip in the project's folder, showing what it does in one line; Failure with its last words if it fails."""
    shutil.rmtree(environment.scratch, ignore_errors=True)
    environment.scratch.mkdir()
    command = [str(environment.python), "-I", "-m", "pip", *arguments]
    command += ["--progress-bar", "off", "--no-input", "--no-color", "--log", str(environment.log)]
    environment.log.unlink(missing_ok=True)
    # It inherits the lock: should this script be killed, the next one waits for the pip that goes on.
    pip = subprocess.Popen(
        command,
        cwd=ROOT,
        env=pip_environment(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(lock,),
    )
    progress = Progress(environment)
    try:
        progress.follow(pip)
        status = pip.wait()
    finally:
        if pip.poll() is None:
            pip.terminate()
            pip.wait()
        progress.clear()
        shutil.rmtree(environment.scratch, ignore_errors=True)
    if status:
        words = "\n".join(f"  {line}" for line in progress.errors[-6:]) or "  (it gave no reason)"
        raise Failure(
            f"pip failed ({status}):\n{words}\n  Its log: {environment.log}\n"
            "  Run it again to go on from here; behind a proxy or with an index of your own, "
            "pip reads PIP_PROXY and PIP_INDEX_URL."
        )


class Progress:
    """What pip is doing, in one line that changes on a terminal, and in one every ten seconds elsewhere."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.errors: list[str] = []
        self.doing = "resolving"
        self.packages = 0
        self.began = self.shown = time.monotonic()
        self.terminal = sys.stdout.isatty()

    def follow(self, pip: subprocess.Popen[bytes]) -> None:
        """Read pip's output to its end."""
        assert pip.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(pip.stdout, selectors.EVENT_READ)
            rest = b""
            while True:
                if selector.select(timeout=0.5):
                    block = os.read(pip.stdout.fileno(), 65536)
                    if not block:
                        return
                    *lines, rest = (rest + block).split(b"\n")
                    for line in lines:
                        self.read(line.decode(errors="replace").rstrip())
                if time.monotonic() - self.shown >= (0.5 if self.terminal else 10):
                    self.show()

    def read(self, line: str) -> None:
        """Take one line of pip's."""
        if re.search(r"\b(ERROR|error):|^\s+(×|╰─>)", line):
            self.errors.append(line.strip())
        elif match := re.match(r"\s*(Collecting|Downloading|Using cached|Processing|Building wheel for) (\S+)", line):
            verb = {"Collecting": "resolving", "Using cached": "fetching"}.get(match[1], match[1].lower())
            self.doing = f"{verb} {match[2].rpartition('/')[2].split('-cp')[0].split('-py')[0]}"
        elif line.startswith("Installing collected packages:"):
            self.packages = line.count(",") + 1
            self.before = self.installed()
            self.doing = "installing"
            self.show()

    def installed(self) -> int:
        """How many packages are in place."""
        return sum(1 for _ in self.environment.folder.glob("lib/python*/site-packages/*.dist-info/RECORD"))

    def show(self) -> None:
        """Say where it stands."""
        self.shown = time.monotonic()
        if self.packages:
            state = f"installing {min(self.installed() - self.before, self.packages)} of {self.packages} packages"
        else:
            state = f"{_size(_fetched(self.environment.scratch))} fetched, {self.doing}"
        text = f"setup: {duration(self.shown - self.began)}: {state}"
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{text[:width]}", end="", flush=True)
        else:
            print(text, flush=True)

    def clear(self) -> None:
        """Take the changing line off the terminal."""
        if self.terminal:
            print("\r\033[K", end="", flush=True)


def _fetched(folder: Path) -> float:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:  # pip removed it meanwhile
                continue
    return total / 1e6


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


def duration(seconds: float) -> str:
    return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s" if seconds >= 60 else f"{seconds:.0f} s"

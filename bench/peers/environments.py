"""Environments of their own for the peers, made once and kept in the bench's cache. Touches no other environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".kanary" / "bench"
PEERS = {
    "mlserver": ("mlserver==1.7.1", "uvloop<0.22"),  # its workers ask uvloop for a loop that later ones do not make
    "bentoml": ("bentoml==1.4.40",),
    "litserve": ("litserve==0.2.19",),
    "zenml": ("zenml[local]==0.98.0",),
    "metaflow": ("metaflow==2.19.22",),
    "evidently": ("evidently==0.7.17",),
}
SERVERS = ("mlserver", "bentoml", "litserve")
_BY_THEMSELVES = ("zenml", "metaflow", "evidently")  # they serve no model of ours
_STAMP = "requirements.txt"
_CPU_INDEX = "https://download.pytorch.org/whl/cpu"


class Unavailable(Exception):
    """A peer that will not install or start; the message says why."""


def prepare(peer: str, say: Callable[[str], None]) -> Path:
    """The folder with the peer's commands; installs it where it is not there yet. Raises Unavailable."""
    folder = CACHE / peer
    # The versions of what the model needs are ours: the same model, the same torch.
    of_the_model = () if peer in _BY_THEMSELVES else ("numpy", "safetensors", "torch")
    ours = [f"{name}=={metadata.version(name)}" for name in of_the_model]
    wanted = "\n".join([*ours, *PEERS[peer]])
    stamp = folder / _STAMP
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == wanted:
        return folder / "bin"
    size = "with its own torch into {}: some minutes, about 1.3 GB, once" if ours else "into {}: a minute, once"
    say(f"installing {PEERS[peer][0]} {size.format(folder)}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True)
    if made.returncode:
        raise Unavailable(f"no environment: {_last_line(made)}")
    if ours:
        torch = ours[-1]
        of_pytorch = [["--index-url", _CPU_INDEX]] if torch.endswith("+cpu") else []
        _first_that_works(folder, [[torch], *([*index, torch] for index in of_pytorch)])
    # With the versions that Kanary is tested with, where the peer can have them.
    everything = [*ours, *PEERS[peer]]
    _first_that_works(folder, [["-c", str(ROOT / "constraints.txt"), *everything], everything])
    stamp.write_text(wanted, encoding="utf-8")
    return folder / "bin"


def _first_that_works(folder: Path, attempts: Sequence[Sequence[str]]) -> None:
    command = [str(folder / "bin" / "python"), "-I", "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
    for arguments in attempts:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        if done.returncode == 0:
            return
    raise Unavailable(f"it does not install: {_last_line(done)}")


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or [f"exit status {done.returncode}"])[0].strip()

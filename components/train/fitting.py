"""The training loop: whole tensors on the device, AdamW, early stopping. Knows batches and a network, no files."""

from __future__ import annotations

import contextlib
import copy
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from components.train.settings import Settings
from kanary.errors import InputError
from serving.model.network import TabularMLP
from serving.model.preprocess import Arrays

SILENCE = 10.0  # seconds after which a long training speaks between its usual lines
SMALL_STEP = 20_000_000  # multiplications in the forward pass of a step

Say = Callable[[str], None]


def tell(line: str) -> None:
    """Print a line at once: a step's log is a file or a pipe, where Python would hold it back until the end."""
    print(line, flush=True)


@dataclass(frozen=True)
class Epoch:
    """One pass: mean cross-entropy over the rows fitted (with dropout) and over those held out (without)."""

    number: int
    loss: float
    validation_loss: float


@dataclass(frozen=True)
class Fit:
    """What the loop gives: the best epoch's weights, every epoch's losses, rows fitted a second."""

    state: dict[str, Tensor]
    best: Epoch
    history: tuple[Epoch, ...]
    rows_per_second: float


@dataclass(frozen=True)
class Batch:
    """Rows on the device: `numeric` float32 [rows, n], `categorical` int64 [rows, m], `target` int64 [rows]."""

    numeric: Tensor
    categorical: Tensor
    target: Tensor

    def __getitem__(self, rows: Tensor | slice) -> Batch:
        return Batch(self.numeric[rows], self.categorical[rows], self.target[rows])

    def __len__(self) -> int:
        return len(self.target)


def fit_network(
    network: TabularMLP, rows: Batch, held: Batch, weight: Tensor | None, settings: Settings, say: Say
) -> Fit:
    """Fit `network` in place by AdamW, stopping early on the log-loss of `held`. Call it inside `reproducible`."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, fused=True)
    shuffle = torch.Generator().manual_seed(settings.seed)
    history: list[Epoch] = []
    best, best_state = Epoch(0, np.inf, np.inf), network.state_dict()
    started = spoke = time.monotonic()

    for number in range(1, settings.epochs + 1):
        network.train()
        shuffled = rows[torch.randperm(len(rows), generator=shuffle).to(rows.target.device)]
        total = torch.zeros((), device=rows.target.device)
        for start in range(0, len(rows), settings.batch_size):
            batch = shuffled[slice(start, start + settings.batch_size)]
            loss = cross_entropy(network(batch.numeric, batch.categorical), batch.target, weight=weight)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.detach() * len(batch)

        network.eval()
        with torch.inference_mode():
            validation = cross_entropy(network(held.numeric, held.categorical), held.target).item()
        epoch = Epoch(number, total.item() / len(rows), validation)
        history.append(epoch)
        if not np.isfinite([epoch.loss, epoch.validation_loss]).all():
            raise InputError(
                f"train: the loss of epoch {number} is not a number: training diverged",
                f"lower learning_rate (it is {settings.learning_rate:g})",
            )
        if epoch.validation_loss < best.validation_loss:
            best, best_state = epoch, copy.deepcopy(network.state_dict())
        last = number == settings.epochs or number - best.number >= settings.patience
        now = time.monotonic()
        if last or number == 1 or number % max(1, settings.epochs // 10) == 0 or now - spoke > SILENCE:
            say(progress(epoch, settings.epochs, len(rows), now - started))
            spoke = now
        if last:
            break
    if number < settings.epochs:
        say(f"stopped early: no better validation loss for {settings.patience} epochs")
    return Fit(best_state, best, tuple(history), len(history) * len(rows) / (time.monotonic() - started))


def progress(epoch: Epoch, epochs: int, rows: int, seconds: float) -> str:
    """One line for a person: losses, speed, and the time left should no early stop come."""
    left = seconds / epoch.number * (epochs - epoch.number)
    return (
        f"epoch {epoch.number:>4}/{epochs}  loss {epoch.loss:.4f}  validation {epoch.validation_loss:.4f}  "
        f"{epoch.number * rows / max(seconds, 1e-9):,.0f} rows/s  {left:.0f} s left at most"
    )


def on_device(device: torch.device, arrays: Arrays, target: npt.NDArray[np.int64]) -> Batch:
    """The rows as tensors on `device`, through pinned memory where that is a GPU."""
    tensors = [torch.from_numpy(array) for array in (arrays.numeric, arrays.categorical, target)]
    if device.type == "cuda":
        tensors = [
            tensor.pin_memory().to(device, non_blocking=True) if tensor.numel() else tensor.to(device)
            for tensor in tensors
        ]
    return Batch(*tensors)


def class_weights(target: Tensor, classes: int) -> Tensor:
    """Weights inverse to each class's frequency, 1 on average over the rows; 0 for a class without rows."""
    counts = torch.bincount(target.cpu(), minlength=classes).float()
    weights = len(target) / ((counts > 0).sum() * counts)
    return torch.where(counts > 0, weights, 0.0).to(target.device)


@contextlib.contextmanager
def few_threads(network: TabularMLP, batch_size: int) -> Iterator[None]:
    """One CPU thread inside the block where a step is too small to share; what was set before, afterwards.

    Threads that wait for each other at every tiny operation gain nothing on an idle machine, and on a busy one
    they cost most of the speed (measured: a tenth of it was left). One thread also sums in the same order anywhere.
    """
    before = torch.get_num_threads()
    if batch_size * sum(parameter.numel() for parameter in network.parameters()) < SMALL_STEP:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seeded generators and deterministic algorithms inside the block; what was set before, afterwards."""
    # cuBLAS reads this once, when it starts; without it its sums differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])

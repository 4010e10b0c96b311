"""The model directory on disk: written beside its place and renamed, read only after verification. No pickle."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kanary import modelspec
from kanary.errors import ModelError
from kanary.modelspec import REFERENCE, SPEC, WEIGHTS, ModelSpec

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

    from serving.model.network import TabularMLP


def save(directory: Path, spec: ModelSpec, state: dict[str, Tensor], reference: pa.Table) -> ModelSpec:
    """Write the model and give its spec with `files`, and `version` where it had none, filled in.

    The same spec, weights and reference rows give the same bytes. ModelError for weights that are not finite.
    """
    import pyarrow.parquet as pq
    from safetensors.torch import save as to_safetensors

    broken = [name for name, tensor in state.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ModelError(f"the weights {', '.join(broken)} are not finite", "lower the learning rate and train again")
    weights = to_safetensors({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    with written_beside(directory) as beside:
        (beside / WEIGHTS).write_bytes(weights)
        # pandas leaves its version and index in a table's metadata; they are no part of the rows.
        pq.write_table(reference.replace_schema_metadata(None), beside / REFERENCE)
        files = {WEIGHTS: weights, REFERENCE: (beside / REFERENCE).read_bytes()}
        spec = replace(
            spec,
            version=spec.version or modelspec.derived_version(weights),
            files={name: modelspec.file_sha256(content) for name, content in files.items()},
        )
        modelspec.check(spec)
        (beside / SPEC).write_text(spec.to_json(), encoding="utf-8")
    return spec


def load(directory: Path, expected_digest: str | None = None) -> tuple[ModelSpec, TabularMLP]:
    """The verified spec and its network, in evaluation mode on the CPU.

    ModelError names the file that is missing, altered or does not fit, or both digests where another is expected.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_safetensors

    from serving.model.network import build

    spec = modelspec.verify(directory, expected_digest)
    try:
        state = from_safetensors(modelspec.read_file(directory, spec, WEIGHTS))
        network = build(spec)
        network.load_state_dict(state)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"{directory / WEIGHTS} does not fit the network that {SPEC} describes: {error}", "train the model again"
        ) from None
    return spec, network.eval()


def reference_rows(directory: Path, spec: ModelSpec) -> pa.Table:
    """The training rows kept with the model, features and target: verified bytes, read as an Arrow table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(modelspec.read_file(directory, spec, REFERENCE)))


@contextlib.contextmanager
def written_beside(directory: Path, replaces: bool = True) -> Iterator[Path]:
    """An empty folder that takes the place of `directory` when the block ends well, and vanishes when it does not.

    Killed at any moment, nothing half-written bears the name `directory`. What stood there before is replaced;
    with `replaces` false it stays, and FileExistsError is raised unless it was an empty folder.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    new, old = beside / "new", beside / "old"
    try:
        new.mkdir()
        yield new
        if replaces and directory.exists():
            os.rename(directory, old)
        try:
            os.rename(new, directory)
        except OSError as error:
            if old.exists():
                os.rename(old, directory)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(error.errno, "stands there already", str(directory)) from None
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)

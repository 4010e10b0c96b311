"""What a predictor is told by its command line and environment."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kanary.errors import ConfigError
from serving.options import boolean, natural, port, share
from serving.predictor.payloads.spec import PayloadLog, payload_log

MODEL_FOLDER = "/mnt/models"
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Settings:
    """`model_name` and `digest` are empty where the model's own count; `torch_threads` 0: by the model."""

    model_name: str
    model_dir: Path
    digest: str
    host: str
    http_port: int
    enable_grpc: bool
    grpc_port: int
    max_body_bytes: int
    torch_threads: int
    grace_s: int
    payload_log: PayloadLog | None = None


def settings(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in `argv`, with what the environment says for what it does not. SystemExit(2) for a wrong word.

    ConfigError for what this server does not offer.
    """
    environment = os.environ if environment is None else environment
    given = _parser(environment).parse_args(argv)
    if given.workers != 1:
        raise ConfigError(f"--workers={given.workers}: a predictor is one process", "raise the replicas instead")
    return Settings(
        model_name=given.model_name,
        model_dir=Path(given.model_dir),
        digest=given.digest,
        host=given.host,
        http_port=given.http_port,
        enable_grpc=given.enable_grpc,
        grpc_port=given.grpc_port,
        max_body_bytes=given.max_body_bytes,
        torch_threads=given.torch_threads,
        grace_s=given.grace_period,
        payload_log=payload_log(given.payload_log, given.payload_sample, given.payload_nice, environment),
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    # HOST is what the platform says (the sandbox: 127.0.0.1), KANARY_HOST what the ServingRuntime says of its image.
    host = environment.get("HOST") or environment.get("KANARY_HOST") or "127.0.0.1"
    parser = argparse.ArgumentParser(
        prog="python -m serving.predictor",
        description="Serve a Kanary model over KServe's V1 and V2 protocols.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model_name", default="", help="name in the URLs and metrics (default: the model's own)")
    add("--model_dir", default=MODEL_FOLDER, help="folder of the model (default: %(default)s)")
    add(
        "--digest",
        default=environment.get("KANARY_MODEL_DIGEST", ""),
        help="sha256:<hex> that the model must have, besides what release.json says (default: $KANARY_MODEL_DIGEST)",
    )
    add("--host", default=host, help="address to listen on (default: $HOST, $KANARY_HOST, 127.0.0.1; now %(default)s)")
    add("--http_port", type=port, default=8080, help="port to listen on, 0 for a free one (default: %(default)s)")
    add(
        "--max_body_bytes",
        type=natural,
        default=10 * MEBIBYTE,
        help="longest request body; a longer one gets 413 (default: %(default)s)",
    )
    add(
        "--torch_threads",
        type=natural,
        default=0,
        help="threads for one prediction (default: $OMP_NUM_THREADS, else 1 for a small model and the cores, at most "
        "4, for a large one)",
    )
    add("--grace_period", type=natural, default=25, help="seconds that requests under way get when told to stop")
    add(
        "--payload_log",
        default=environment.get("KANARY_PAYLOAD_LOG", ""),
        help="JSON: where to send requests and responses as CloudEvents, none if empty (default: $KANARY_PAYLOAD_LOG)",
    )
    add(
        "--payload_nice",
        type=int,
        choices=range(20),
        default=19,
        metavar="0..19",
        help="how far sending gives way to predicting where the processor is busy (default: %(default)s)",
    )
    add("--payload_sample", type=share, default=1.0, help="share of predictions that is logged, 0 to 1 (default: 1)")
    add("--enable_grpc", type=boolean, default=False, help="answer the V2 protocol over gRPC, too (default: false)")
    add("--grpc_port", type=port, default=8081, help="its port, 0 for a free one (default: %(default)s)")
    add("--workers", type=natural, default=1, help="KServe's number of processes; only 1 is offered")
    return parser

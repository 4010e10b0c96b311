"""All that a predictor imports, its late imports included: the one module to fork warm predictors from.

Importing it starts no thread, opens no file or socket, makes no event loop and runs no torch operation.
"""

# ruff: noqa: F401  # to be imported is all they are here for

from __future__ import annotations

import kserve.protocol.rest.timeseries.config
import pyarrow.dataset
import pyarrow.pandas_compat
import pyarrow.parquet
import pydantic.v1
import safetensors.torch
import uvicorn.lifespan.on
import uvicorn.loops.uvloop
import uvicorn.protocols.http.auto
import uvicorn.protocols.websockets.auto

import serving.predictor.server

"""`kanary submit`: start a run of a compiled pipeline, the parameters typed as it declares them."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kanary import kfp
from kanary.commands.show import as_json
from kanary.commands.watch import exit_code, watch
from kanary.config import Config
from kanary.discovery import kfp_client
from kanary.errors import InputError
from kanary.kfp_spec import Pipeline, bind, read_pipeline

if TYPE_CHECKING:
    from kanary.cli import Action


def submit(parser: argparse.ArgumentParser) -> Action:
    """Start a run of a compiled pipeline.

    Parameters are key=value; where the pipeline declares another type than text, the value is read as JSON:
    epochs=20, hidden='[64, 32]', gates='{"accuracy": {"min": 0.9}}'.
    """
    parser.add_argument("pipeline", metavar="PIPELINE.yaml", type=Path, help="the compiled pipeline")
    parser.add_argument("parameters", metavar="key=value", nargs="*", help="a parameter")
    parser.add_argument("--experiment", default="Default", metavar="NAME", help="created if need be (default: Default)")
    parser.add_argument("--name", help="the run's name (default: the pipeline's, and the time)")
    parser.add_argument("--pipeline-root", default="", metavar="URI", help="where artifacts go (default: the server's)")
    parser.add_argument("--service-account", default="", metavar="NAME", help="Kubernetes account that the tasks have")
    parser.add_argument("--watch", action="store_true", help="print each step as it happens, until the run ends")
    parser.add_argument("--json", action="store_true", help="print the run as one JSON object")
    return _submit


def _submit(given: argparse.Namespace, config: Config) -> int:
    pipeline = _read(given.pipeline)
    parameters = bind(pipeline, given.parameters)
    with kfp_client(config) as api:
        experiment = api.call(kfp.ensure_experiment(given.experiment, namespace=config.namespace))
        run = api.call(
            kfp.create_run(
                pipeline.spec,
                name=given.name or f"{pipeline.name} {datetime.now():%Y-%m-%d %H-%M-%S}",
                parameters=parameters,
                platform_spec=pipeline.platform_spec,
                experiment_id=experiment.experiment_id,
                pipeline_root=given.pipeline_root,
                service_account=given.service_account,
            )
        )
        if not given.json:
            print(f"Run {run.run_id} of {pipeline.name} has begun.", flush=True)
        if given.watch:
            run = watch(api, run.run_id, quiet=given.json)
    if given.json:
        print(json.dumps(as_json(run), indent=2))
    return exit_code(run) if given.watch else 0


def _read(path: Path) -> Pipeline:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}", "Name a compiled pipeline.") from error
    return read_pipeline(text, str(path))

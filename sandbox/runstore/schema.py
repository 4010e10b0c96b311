"""The KFP store's tables, as the steps that lead from each schema version to the next. A step never changes again."""

from __future__ import annotations

_FIRST = """
CREATE TABLE blobs (hash TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE experiments (
    experiment_id TEXT PRIMARY KEY, display_name TEXT NOT NULL, description TEXT NOT NULL, namespace TEXT NOT NULL,
    storage_state TEXT NOT NULL, created_at REAL NOT NULL, last_run_created_at REAL NOT NULL,
    UNIQUE (namespace, display_name)
) WITHOUT ROWID;
CREATE INDEX experiments_by_age ON experiments (created_at, experiment_id);

CREATE TABLE pipelines (
    pipeline_id TEXT PRIMARY KEY, name TEXT NOT NULL, display_name TEXT NOT NULL, description TEXT NOT NULL,
    namespace TEXT NOT NULL, created_at REAL NOT NULL,
    UNIQUE (namespace, name)
) WITHOUT ROWID;
CREATE INDEX pipelines_by_age ON pipelines (created_at, pipeline_id);

CREATE TABLE versions (
    pipeline_version_id TEXT PRIMARY KEY, pipeline_id TEXT NOT NULL, name TEXT NOT NULL, display_name TEXT NOT NULL,
    description TEXT NOT NULL, code_source_url TEXT NOT NULL, created_at REAL NOT NULL,
    spec_hash TEXT NOT NULL, platform_hash TEXT NOT NULL,
    UNIQUE (pipeline_id, name)
) WITHOUT ROWID;
CREATE INDEX versions_by_age ON versions (pipeline_id, created_at, pipeline_version_id);
CREATE INDEX versions_by_spec ON versions (spec_hash);

CREATE TABLE runs (
    run_id TEXT PRIMARY KEY, experiment_id TEXT NOT NULL, display_name TEXT NOT NULL, description TEXT NOT NULL,
    namespace TEXT NOT NULL, pipeline_id TEXT NOT NULL, pipeline_version_id TEXT NOT NULL,
    state TEXT NOT NULL, storage_state TEXT NOT NULL, error TEXT NOT NULL,
    created_at REAL NOT NULL, scheduled_at REAL NOT NULL, finished_at REAL,
    pipeline_root TEXT NOT NULL, service_account TEXT NOT NULL, enable_caching INTEGER,
    parameters TEXT NOT NULL, state_history TEXT NOT NULL, spec_hash TEXT NOT NULL, platform_hash TEXT NOT NULL
);
CREATE INDEX runs_by_age ON runs (created_at, run_id);
CREATE INDEX runs_by_experiment ON runs (experiment_id, created_at, run_id);
CREATE INDEX runs_by_storage ON runs (storage_state, created_at, run_id);
CREATE INDEX runs_by_name ON runs (display_name, run_id);
CREATE INDEX runs_by_state ON runs (state, run_id);
CREATE INDEX runs_by_spec ON runs (spec_hash);

CREATE TABLE tasks (
    task_id TEXT PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs ON DELETE CASCADE,
    parent_task_id TEXT NOT NULL, name TEXT NOT NULL, display_name TEXT NOT NULL, kind TEXT NOT NULL,
    state TEXT NOT NULL, created_at REAL NOT NULL, started_at REAL, finished_at REAL,
    error TEXT NOT NULL, pod_name TEXT NOT NULL, attempt INTEGER NOT NULL, cached INTEGER NOT NULL,
    fingerprint TEXT NOT NULL, inputs TEXT NOT NULL, outputs TEXT NOT NULL, state_history TEXT NOT NULL
);
CREATE INDEX tasks_by_run ON tasks (run_id, created_at, task_id);
CREATE INDEX tasks_by_pod ON tasks (pod_name);
CREATE INDEX tasks_by_fingerprint ON tasks (fingerprint, finished_at)
    WHERE fingerprint <> '' AND state = 'SUCCEEDED' AND kind = 'POD';
"""

_ITERATIONS = """
ALTER TABLE tasks ADD COLUMN iteration_index INTEGER;
ALTER TABLE tasks ADD COLUMN iteration_count INTEGER;
"""

_RECURRING_RUNS = """
CREATE TABLE recurring_runs (
    recurring_run_id TEXT PRIMARY KEY, experiment_id TEXT NOT NULL, display_name TEXT NOT NULL,
    description TEXT NOT NULL, namespace TEXT NOT NULL, pipeline_id TEXT NOT NULL, pipeline_version_id TEXT NOT NULL,
    enabled INTEGER NOT NULL, created_at REAL NOT NULL, updated_at REAL NOT NULL, max_concurrency INTEGER NOT NULL,
    no_catchup INTEGER NOT NULL, cron TEXT NOT NULL, interval_second INTEGER NOT NULL, start_time REAL, end_time REAL,
    service_account TEXT NOT NULL, pipeline_root TEXT NOT NULL, parameters TEXT NOT NULL,
    last_triggered REAL, last_index INTEGER NOT NULL, error TEXT NOT NULL,
    spec_hash TEXT NOT NULL, platform_hash TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX recurring_runs_by_age ON recurring_runs (created_at, recurring_run_id);
CREATE INDEX recurring_runs_by_experiment ON recurring_runs (experiment_id, created_at, recurring_run_id);
CREATE INDEX recurring_runs_by_spec ON recurring_runs (spec_hash);
ALTER TABLE runs ADD COLUMN recurring_run_id TEXT NOT NULL DEFAULT '';
CREATE INDEX runs_by_recurring_run ON runs (recurring_run_id, state) WHERE recurring_run_id <> '';
CREATE INDEX runs_by_state_and_age ON runs (state, created_at, run_id);
-- What lists filter by lies in the index itself: of 10,000 runs only those that are shown are read.
DROP INDEX runs_by_age;
CREATE INDEX runs_by_age ON runs (created_at, run_id, display_name, state, storage_state);
CREATE INDEX runs_by_end ON runs (ifnull(finished_at, 0), run_id);
CREATE INDEX runs_by_schedule ON runs (scheduled_at, run_id);

CREATE TABLE artifacts (
    artifact_id TEXT PRIMARY KEY, run_id TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, task_id TEXT NOT NULL,
    namespace TEXT NOT NULL, name TEXT NOT NULL, type TEXT NOT NULL, uri TEXT NOT NULL, created_at REAL NOT NULL,
    number REAL, metadata TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX artifacts_by_age ON artifacts (created_at, artifact_id);
CREATE INDEX artifacts_by_run ON artifacts (run_id);

ALTER TABLE pipelines ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';
ALTER TABLE versions ADD COLUMN tags TEXT NOT NULL DEFAULT '{}';
"""

STEPS = (_FIRST, _ITERATIONS, _RECURRING_RUNS)
SCHEMA_VERSION = len(STEPS)

"""What Envoy starts with: one listener on 127.0.0.1, its filters and log, statistics, the watched files."""

from __future__ import annotations

from sandbox.gateway.description import DOMAIN
from sandbox.gateway.files import Document, Files
from sandbox.gateway.routes import NAME, STREAM_IDLE_S

LOOPBACK = "127.0.0.1"
MAX_BODY_BYTES = 32 * 1024 * 1024
# Milliseconds; finer than Envoy's own where model servers answer, so that quantiles mean something.
LATENCY_BUCKETS_MS = (0.5, 1, 2, 3, 5, 7.5, 10, 15, 25, 50, 75, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000)

# /serving/<namespace>/<service>/rest becomes /rest of <service>.<namespace>.localhost: routes know hosts only.
_PATH_TO_HOST = f"""
function envoy_on_request(handle)
  local headers = handle:headers()
  local path = headers:get(":path")
  local namespace, service, rest = string.match(path, "^/serving/([-a-z0-9]+)/([-a-z0-9]+)(.*)$")
  if service and (rest == "" or string.find(rest, "^[/?]")) then
    headers:replace("x-envoy-original-path", path)
    headers:replace(":authority", service .. "." .. namespace .. ".{DOMAIN}")
    headers:replace(":path", string.find(rest, "^/") and rest or "/" .. rest)
  end
end
"""

_ACCESS_LOG = {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "ce_id": "%REQ(CE-ID)%",
    "namespace": "%METADATA(ROUTE:kanary:namespace)%",
    "service": "%METADATA(ROUTE:kanary:service)%",
    "revision": "%METADATA(CLUSTER:kanary:revision)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "status": "%RESPONSE_CODE%",
    "duration_us": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "upstream_us": "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
}


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"


_PATHS = {
    "name": "envoy.filters.http.lua",
    "typed_config": {
        "@type": _type("filters.http.lua.v3.Lua"),
        "default_source_code": {"inline_string": _PATH_TO_HOST},
    },
}
_BODY_LIMIT = {
    "name": "envoy.filters.http.buffer",
    "typed_config": {"@type": _type("filters.http.buffer.v3.Buffer"), "max_request_bytes": MAX_BODY_BYTES},
}
_ROUTER = {"name": "envoy.filters.http.router", "typed_config": {"@type": _type("filters.http.router.v3.Router")}}


def bootstrap(files: Files, port: int, admin_port: int) -> Document:
    """The bootstrap document. The listener is part of it, so that a taken port ends Envoy instead of being ignored."""
    return {
        "node": {"id": "sandbox", "cluster": "kanary"},
        "admin": {"address": _address(admin_port)},
        "static_resources": {"listeners": [_listener(files, port)]},
        "dynamic_resources": {"cds_config": _watched(str(files.clusters), str(files.clusters.parent))},
        "stats_config": _stats(),
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": _type("resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"),
                        "max_active_downstream_connections": 5000,
                    },
                }
            ]
        },
    }


def _listener(files: Files, port: int) -> Document:
    manager = {
        "@type": _type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "gateway",
        "rds": {
            "route_config_name": NAME,
            "config_source": _watched(str(files.routes), str(files.routes.parent)),
        },
        "http_filters": [_PATHS, _BODY_LIMIT, _ROUTER],
        # What is upgraded is a stream of bytes both ways, which no limit on a body concerns.
        "upgrade_configs": [{"upgrade_type": "websocket", "filters": [_PATHS, _ROUTER]}],
        "access_log": [_access_log(str(files.access_log))],
        "local_reply_config": _local_replies(),
        "use_remote_address": True,
        "preserve_external_request_id": True,
        "always_set_request_id_in_response": True,
        "normalize_path": True,
        "merge_slashes": True,
        "strip_any_host_port": True,
        "request_headers_timeout": "10s",
        "request_timeout": "60s",
        "stream_idle_timeout": f"{STREAM_IDLE_S:g}s",
        "delayed_close_timeout": "1s",
    }
    return {
        "name": "gateway",
        "address": _address(port),
        # With reuse_port two sandboxes could hold one port, and each would answer half of the requests.
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": 1024 * 1024,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _local_replies() -> Document:
    """JSON for every answer that is not a model server's: `error` for a person, `reason` for a program."""
    reasons: tuple[tuple[str, Document], ...] = (
        ("revision-not-ready", {"response_flag_filter": {"flags": ["UH"]}}),
        ("overloaded", {"response_flag_filter": {"flags": ["UO"]}}),
        ("timeout", {"response_flag_filter": {"flags": ["UT"]}}),
        ("revision-unreachable", {"response_flag_filter": {"flags": ["UF", "UC", "UR", "LR", "UPE"]}}),
        ("body-too-large", _status(413)),
    )
    as_it_is = {"filter": _status(200), "body_format_override": {"text_format_source": {"inline_string": _BODY}}}
    mappers = [{"filter": test, "body_format_override": _reply(reason)} for reason, test in reasons]
    return {"mappers": [*mappers, as_it_is], "body_format": _reply("%ROUTE_NAME%")}


_BODY = "%LOCAL_REPLY_BODY%"


def _reply(reason: str) -> Document:
    fields = {
        "error": _BODY,
        "reason": reason,
        "details": "%RESPONSE_CODE_DETAILS%",
        "service": "%METADATA(ROUTE:kanary:service)%",
        "revision": "%METADATA(CLUSTER:kanary:revision)%",
        "request_id": "%REQ(X-REQUEST-ID)%",
    }
    return {"json_format": fields}


def _status(code: int) -> Document:
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": {"default_value": code, "runtime_key": "none"}}}}


def _access_log(path: str) -> Document:
    not_a_probe = {"header": {"name": ":path", "string_match": {"prefix": "/-/"}, "invert_match": True}}
    return {
        "name": "envoy.access_loggers.file",
        "filter": {"header_filter": not_a_probe},
        "typed_config": {
            "@type": _type("access_loggers.file.v3.FileAccessLog"),
            "path": path,
            "log_format": {"json_format": _ACCESS_LOG},
        },
    }


def _stats() -> Document:
    """Clusters are named `namespace/service/revision`: each part becomes a label of that name in Prometheus."""
    requests = (
        "total|active|pending_active|completed|time|timeout|cancelled|rx_reset|pending_overflow|[1-5]xx|[1-5][0-9]{2}"
    )
    retries = "retry|retry_success|retry_limit_exceeded|retry_overflow"
    connections = "active|total|connect_fail|connect_timeout|none_healthy"
    kept = (
        rf"cluster\.[^.]+\.upstream_(rq_({requests}|{retries})|cx_({connections}))",
        r"cluster\.[^.]+\.membership_(healthy|total)",
        r"cluster_manager\..*",
        r"http\.gateway\..*",
        r"server\.(live|uptime|memory_.*|state)",
    )
    return {
        "stats_tags": [
            {"tag_name": "namespace", "regex": r"^cluster\.(([^/.]+)/)[^/.]+/[^/.]+\."},
            {"tag_name": "service", "regex": r"^cluster\.[^/.]+/(([^/.]+)/)[^/.]+\."},
            {"tag_name": "revision", "regex": r"^cluster\.[^/.]+/[^/.]+/(([^/.]+)\.)"},
        ],
        "stats_matcher": {"inclusion_list": {"patterns": [{"safe_regex": {"regex": regex}} for regex in kept]}},
        "histogram_bucket_settings": [
            {"match": {"suffix": "upstream_rq_time"}, "buckets": list(LATENCY_BUCKETS_MS)},
        ],
    }


def _watched(path: str, directory: str) -> Document:
    source = {"path": path, "watched_directory": {"path": directory}}
    # Long enough to read a file; with one that is spoilt Envoy starts without it and waits for the next.
    return {"resource_api_version": "V3", "path_config_source": source, "initial_fetch_timeout": "1s"}


def _address(port: int) -> Document:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}

"""Settings of the API: one frozen struct, filled from /etc/ooni/api.toml and the environment (OONI_API_<FIELD>)."""

import ipaddress
import os
import re
from pathlib import Path
from typing import Literal

import msgspec

from api import APP
from api.cors import Origins
from api.login_settings import check_login
from api.proxies import TrustedProxies
from api.testlist_settings import check_test_lists
from core.config import ConfigError, load_settings
from core.db import DatabaseUnavailable, open_pool
from core.log import LEVELS
from core.objectstore import StoreError, open_store

CONFIG_VARIABLE = "OONI_API_CONFIG"
"""Environment variable with the path of the configuration file."""

REQUEST_LINE_LIMIT = 8190
"""Longest first line of a request that is taken, in bytes; the links in replies are shorter."""

_COLLECTOR = re.compile(r"[0-9A-Za-z]{1,20}", re.ASCII)
_ADDRESS = re.compile(r"(unix:/.+)|(.*:\d{1,5})", re.ASCII)

_MOST_DAYS = 3_650

_HOST_AND_PORT = re.compile(r"([^\s:\[\]]+|\[[0-9A-Fa-f:.]+\]):(\d{1,5})", re.ASCII)

_AT_LEAST_ONE = (
    "workers",
    "threads",
    "graceful_timeout_s",
    "database_connections",
    "statement_timeout_ms",
    "fastpath_queue",
    "max_received_bytes",
    "max_inflated_bytes",
    "large_bodies_at_once",
    "quota_prefix_factor",
    "quota_token_factor",
)


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the HTTP API."""

    # Address that gunicorn listens on, `host:port` or `unix:/path`.
    bind: str = "127.0.0.1:8000"
    # Public base address, without a slash at the end; it starts the links in replies.
    base_url: str = "http://127.0.0.1:8000"
    # Address of the web interface, without a slash at the end; links of earlier years are redirected to it.
    explorer_url: str = "https://explorer.ooni.org"
    # Number of worker processes; about one per core.
    workers: int = 2
    # Number of requests that one worker process handles at the same time.
    threads: int = 16
    # Number of seconds that requests in flight get to finish when the service stops.
    graceful_timeout_s: int = 30
    # Number of seconds after which the connection of one request is cut off, whatever it waits for.
    request_timeout_s: float = 120.0
    # Port of the Prometheus endpoint, served by the master process on metrics_host; 0 switches it off.
    metrics_port: int = 9301
    # Address of the Prometheus endpoint.
    metrics_host: str = "127.0.0.1"
    # Directory for the counters that worker processes share; empty makes a temporary one at each start.
    metrics_dir: str = ""
    # Connection string of the PostgreSQL database.
    db_uri: str = "postgresql:///ooni"
    # Greatest number of database connections of one worker process.
    database_connections: int = 8
    # Longest time that one query may run, in milliseconds.
    statement_timeout_ms: int = 28_000
    # Directory of the durable measurement spool, shared with the fastpath and the uploader.
    spool_directory: str = "/var/lib/ooniapi/measurements"
    # Free disk space, in bytes, below which measurements are refused with 503.
    spool_min_free_bytes: int = 256 * 1024 * 1024
    # Address on the private network where other API hosts read the spool of this one, `host:port`; empty for none.
    spool_listen: str = ""
    # Addresses where the other API hosts serve their spools, such as http://10.0.0.2:8475.
    peers: tuple[str, ...] = ()
    # Whether to ask the database if another host took a measurement that comes again; for several API hosts.
    repeats_from_database: bool = False
    # Space for bodies read from the object store, in bytes, in the directory `cache` of the spool; 0 for none.
    body_cache_bytes: int = 256 * 1024 * 1024
    # Address of the object store: file:///directory or s3://bucket/prefix.
    store_url: str = "file:///var/lib/ooniapi/objects"
    # Address of an S3-compatible service; empty takes the provider's own.
    store_endpoint: str = ""
    # Region of the object store; empty takes the default.
    store_region: str = ""
    # Base address of the fastpath that is told about each new measurement.
    fastpath_url: str = "http://127.0.0.1:8472"
    # Whether the fastpath reads the same spool: then it is sent the uid alone, otherwise the body as well.
    fastpath_shares_spool: bool = True
    # Longest time to wait for the fastpath's answer, in seconds; no client waits for it.
    fastpath_timeout_s: float = 5.0
    # Number of hand-overs one worker keeps waiting; more are left to the fastpath's own sweep.
    fastpath_queue: int = 2000
    # Identifier of this collector, part of every report id; letters and digits.
    collector_id: str = "1"
    # Directory of the files that say what probes are told; empty, or one that does not exist, for made-up examples.
    probe_config_directory: str = "/etc/ooni/probe"
    # Largest request body as received (compressed or not), in bytes.
    max_received_bytes: int = 32 * 1024 * 1024
    # Largest request body after decompression, in bytes.
    max_inflated_bytes: int = 64 * 1024 * 1024
    # Bodies above 8 MiB that one worker handles at once, and four times as many above 1 MiB; others wait, then get 503.
    large_bodies_at_once: int = 1
    # Number of seconds for which a worker gives the same answer to statistics without parameters; 0 reads each time.
    statistics_kept_s: float = 300.0
    # Whether readers have quotas of server time; probes never have.
    quotas_enabled: bool = True
    # Number of times the quota of one address that the network around it has (IPv4 /24, IPv6 /48).
    quota_prefix_factor: int = 10
    # Number of times the quota of one address that an account has for all requests with its access tokens.
    quota_token_factor: int = 5
    # Addresses and networks without quotas, such as those of the web interface and of monitoring.
    quota_exempt: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    # Networks of our proxies, whose X-Real-IP and X-Forwarded-For are believed; they must replace those of clients.
    trusted_proxies: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    # Origins whose pages may read replies, such as https://a.example.org or https://*.example.org; `*` for any.
    cors_origins: tuple[str, ...] = ("*",)
    # File with the countries of addresses (MaxMind's format), read again when it changes; empty for none.
    geo_country_db: str = ""
    # File with the networks (AS numbers) of addresses, read again when it changes; may be the same one; empty for none.
    geo_asn_db: str = ""
    # Directory for what the API keeps for itself, such as the key of probe tokens; nobody else should read it.
    state_directory: str = "/var/lib/ooni-api"
    # File with keys of probe tokens that hosts share, one a line: the first signs, all count; empty: a key of its own.
    probe_token_keys: str = ""
    # File with keys of sessions of people that hosts share, one a line: the first signs, all count; empty: its own.
    session_keys: str = ""
    # File with the key that e-mail addresses are hashed with, the same on all hosts for good; empty: a key of its own.
    account_id_key: str = ""
    # Number of days after which a session ends that was not refreshed.
    session_expiry_days: float = 10.0
    # Number of days after which a session ends however often it was refreshed.
    login_expiry_days: float = 90.0
    # Hosts of web interfaces that people may log in from; http://localhost:3000 names one on the same machine.
    login_redirect_hosts: tuple[str, ...] = ()
    # How login links reach people: smtp, or log, which writes them into the log of a stack on your own machine.
    mail_transport: Literal["smtp", "log"] = "smtp"
    # Name or address of the SMTP server that takes login links; empty for none, and nobody can log in.
    mail_server: str = ""
    # Port of the SMTP server.
    mail_port: int = 587
    # How the connection to it is encrypted: starttls, tls (from its start), or none, for a server on the same host.
    mail_security: Literal["starttls", "tls", "none"] = "starttls"
    # Name to log in to the SMTP server with; empty for none.
    mail_username: str = ""
    # File with the password for mail_username on its first line; read for each mail.
    mail_password_file: str = ""
    # Address that login links come from.
    mail_source_address: str = ""
    # Git repository with the test lists that people propose changes to, an address or a path; empty: editing is off.
    test_lists_repository: str = ""
    # Branch of it that counts, and that changes are proposed to.
    test_lists_branch: str = "master"
    # Git repository that proposed changes are pushed to, as branches; empty: the same one.
    test_lists_push_repository: str = ""
    # Repository at a forge with the REST API of GitHub, where pull requests are opened; empty: branches alone.
    test_lists_forge_api: str = ""
    # File with the token for the forge and for pushing over https, on one line; read for each use; empty for none.
    test_lists_forge_token: str = ""
    # Owner of test_lists_push_repository at the forge, when it is a fork.
    test_lists_fork_owner: str = ""
    # Whose name and address the commits of proposed changes bear, whoever made them.
    test_lists_author: str = "Test list editor <test-lists@localhost>"
    # Least severe log level written: DEBUG, INFO, WARNING, ERROR.
    log_level: str = "INFO"


def load(path: Path | None = None) -> ApiSettings:
    """Load the settings and check what a type cannot express.

    Raises:
        ConfigError: naming the key and what it should look like.
    """
    settings = load_settings(ApiSettings, app=APP, path=path)
    check(settings)
    return settings


def check(settings: ApiSettings) -> None:
    """Raise ConfigError when a value is outside its range or is no address of the kind that is needed."""
    for name in _AT_LEAST_ONE:
        if getattr(settings, name) < 1:
            raise ConfigError(f"{name} is {getattr(settings, name)}; give a number of at least 1.")
    for name in ("request_timeout_s", "fastpath_timeout_s"):
        if not getattr(settings, name) > 0:
            raise ConfigError(f"{name} is {getattr(settings, name)}; give a number of seconds above 0.")
    if settings.statistics_kept_s < 0:
        raise ConfigError(f"statistics_kept_s is {settings.statistics_kept_s}; give a number of seconds, or 0.")
    for name in ("session_expiry_days", "login_expiry_days"):
        if not 0 < getattr(settings, name) <= _MOST_DAYS:
            raise ConfigError(f"{name} is {getattr(settings, name)}; give a number of days, at most {_MOST_DAYS}.")
    if settings.body_cache_bytes < 0:
        raise ConfigError(
            f"body_cache_bytes is {settings.body_cache_bytes}; give a number of bytes, or 0 for no cache."
        )
    if not 0 <= settings.metrics_port <= 65535:
        raise ConfigError(f"metrics_port is {settings.metrics_port}; give a port up to 65535, or 0 for none.")
    if not _COLLECTOR.fullmatch(settings.collector_id):
        raise ConfigError("collector_id may hold 1 to 20 letters and digits only; for example 1.")
    if settings.log_level.upper() not in LEVELS:
        raise ConfigError(f"log_level must be one of {', '.join(LEVELS)}; for example INFO.")
    _check_quota_exempt(settings.quota_exempt)
    _check_addresses(settings)
    check_login(settings)
    check_test_lists(settings)
    try:
        Origins(settings.cors_origins)
    except ValueError as error:
        raise ConfigError(f"cors_origins: {error}.") from error
    try:
        TrustedProxies(settings.trusted_proxies)
    except ValueError as error:
        raise ConfigError(f"trusted_proxies: {error}. Write networks like 10.0.0.0/24 or 127.0.0.1.") from error


def _check_quota_exempt(networks: tuple[str, ...]) -> None:
    for text in networks:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise ConfigError(
                f"quota_exempt holds {text!r}, which is no address and no network ({error}); write it like 192.0.2.7 "
                "or 2001:db8:1::/48."
            ) from error


def _check_addresses(settings: ApiSettings) -> None:
    if not _ADDRESS.fullmatch(settings.bind):
        raise ConfigError("bind is not an address; give host:port or unix:/path, for example 127.0.0.1:8000.")
    _check_spool_listen(settings.spool_listen)
    named = [(name, getattr(settings, name)) for name in ("base_url", "explorer_url", "fastpath_url")]
    for name, value in [*named, *(("peers", peer) for peer in settings.peers)]:
        if not value.startswith(("http://", "https://")) or value.endswith("/"):
            raise ConfigError(
                f"{name} is {value!r}; give an http address without a slash at the end, such as http://127.0.0.1:8000."
            )
    try:  # neither of the two connects to anything yet
        open_store(settings.store_url)
        open_pool(settings.db_uri)
    except StoreError as error:
        raise ConfigError(f"store_url: {error}") from error
    except DatabaseUnavailable as error:
        raise ConfigError(f"db_uri: {error}") from error


def listen_address(text: str) -> tuple[str, int]:
    """Take `host:port` or `[address]:port` apart."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def _check_spool_listen(text: str) -> None:
    if not text:
        return
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ConfigError(
            "spool_listen is not an address; give host:port, for example 10.0.0.1:8475, or leave it empty."
        )
    try:
        everywhere = ipaddress.ip_address(match[1].strip("[]")).is_unspecified
    except ValueError:
        everywhere = False  # a name
    if everywhere:
        raise ConfigError(
            f"spool_listen is {text}, which means every network. Bodies are for the other API hosts alone: give this "
            "host's address on the private network, for example 10.0.0.1:8475."
        )


def exported_path() -> Path | None:
    """Return the configuration file named by the environment, if any."""
    text = os.environ.get(CONFIG_VARIABLE, "")
    return Path(text) if text else None

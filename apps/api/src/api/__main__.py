"""`ooni-api`: check the configuration, then become gunicorn with it; its commands do something else instead."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from api import make_admin, probe_config_cli
from api.config import CONFIG_VARIABLE, ApiSettings, exported_path, load
from api.probe_config_cli import EXIT_CONFIG
from api.quota_summary import NoQuotas, summary
from api.quotas import Factors
from core.config import ConfigError
from core.metrics import MULTIPROC_VARIABLE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; does not return when the server starts."""
    parser = argparse.ArgumentParser(prog="ooni-api", description=__doc__)
    parser.add_argument("--config", type=Path, help="TOML file; default: $OONI_API_CONFIG or /etc/ooni/api.toml")
    parser.add_argument("--check", action="store_true", help="check the configuration and exit")
    parser.add_argument(
        "--quotas",
        action="store_true",
        help="print which addresses and accounts have used most of today's quota, and exit",
    )
    commands = parser.add_subparsers(title="commands instead of serving", metavar="COMMAND")
    probe_config_cli.add_to(commands)
    make_admin.add_to(commands)
    options = parser.parse_args(arguments)
    if "run" in options:
        return int(options.run(options))
    try:
        settings = load(options.config or exported_path())
    except ConfigError as error:
        print(f"ooni-api: {error}", file=sys.stderr)
        return EXIT_CONFIG
    if options.check:
        print("ooni-api: the configuration is fine.")
        return 0
    if options.quotas:
        return print_quotas(settings)
    environment = dict(os.environ)
    if options.config:
        environment[CONFIG_VARIABLE] = str(options.config)
    environment[MULTIPROC_VARIABLE] = str(prepare_metrics_directory(settings.metrics_dir))
    return become_gunicorn(environment)


def print_quotas(settings: ApiSettings) -> int:
    """Print `[address or account, seconds left today]` as JSON, one a line, lowest first; for the administrator."""
    try:
        for pair in summary(settings.bind, Factors(settings.quota_prefix_factor, settings.quota_token_factor)):
            print(json.dumps(pair))
    except NoQuotas as error:
        print(f"ooni-api: {error}", file=sys.stderr)
        return 1
    return 0


def become_gunicorn(environment: dict[str, str]) -> NoReturn:
    """Replace this process by gunicorn, so that signals and the service manager's notifications reach it.

    A fresh interpreter, because the metrics library looks at its directory when it is imported.
    """
    command = [sys.executable, "-m", "gunicorn", "-c", "python:api.gunicorn_conf"]
    os.execve(sys.executable, command, environment)  # noqa: S606 no shell, our own interpreter


def prepare_metrics_directory(configured: str) -> Path:
    """Return an empty directory for the values that worker processes share.

    Values of an earlier run would be added to those of this one, so its files are removed.
    """
    if not configured:
        return Path(tempfile.mkdtemp(prefix="ooni-api-metrics-"))
    directory = Path(configured)
    directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    for stale in directory.glob("*.db"):
        stale.unlink()
    return directory


if __name__ == "__main__":
    sys.exit(main())

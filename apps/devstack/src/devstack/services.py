"""The programs of a stack: their commands, and the environment that makes them work together."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from devstack.config import StackSettings
from devstack.errors import StackError
from devstack.places import Places
from devstack.ports import HOST, free_ports

_NOT_INHERITED = ("JOURNAL_STREAM", "NOTIFY_SOCKET", "PROMETHEUS_MULTIPROC_DIR", "WATCHDOG_USEC", "WATCHDOG_PID")
"""What the service manager tells the stack itself is not meant for its children."""

_APPS = ("API", "FASTPATH", "UPLOADER", "ANALYSIS")
_WEB_INTERFACES = (
    *("explorer.ooni.org", "explorer.test.ooni.org", "explorer.dev.ooni.org"),
    *("run.ooni.io", "run.ooni.org", "run.test.ooni.org", "run-v2.ooni.org"),
    *("test-lists.ooni.org", "test-lists.test.ooni.org"),
    *("http://localhost:3000", "http://127.0.0.1:3000"),
)
"""Where people may log in from: what probes' users know, and an interface that somebody develops on this machine."""

_HEALTH_TIMEOUT_S = 2.0


def command(name: str) -> Path:
    """Return the path of a command of this installation.

    Raises:
        StackError: it is not installed.
    """
    path = Path(sys.executable).parent / name
    if not os.access(path, os.X_OK):
        raise StackError(f"{path} is missing. Install everything with: make setup")
    return path


class Wiring:
    """Addresses of one stack, and the environment of its programs."""

    def __init__(self, settings: StackSettings, places: Places, dsn: str) -> None:
        """Choose free ports for everything but the API."""
        self.url = f"http://{HOST}:{settings.port}"
        fastpath_port, fastpath_metrics, api_metrics = free_ports(3)
        self.fastpath_url = f"http://{HOST}:{fastpath_port}"
        self.fastpath_metrics_url = f"http://{HOST}:{fastpath_metrics}/metrics"
        self.api_metrics_url = f"http://{HOST}:{api_metrics}/metrics"
        store = places.objects.as_uri()
        self._fixed = {
            "OONI_DSN": dsn,
            "OONI_API_BIND": f"{HOST}:{settings.port}",
            "OONI_API_BASE_URL": self.url,
            "OONI_API_METRICS_HOST": HOST,
            "OONI_API_METRICS_PORT": str(api_metrics),
            "OONI_API_DB_URI": dsn,
            "OONI_API_SPOOL_DIRECTORY": str(places.spool),
            "OONI_API_STORE_URL": store,
            "OONI_API_STATE_DIRECTORY": str(places.state),
            "OONI_API_FASTPATH_URL": self.fastpath_url,
            "OONI_FASTPATH_HTTP_HOST": HOST,
            "OONI_FASTPATH_HTTP_PORT": str(fastpath_port),
            "OONI_FASTPATH_METRICS_HOST": HOST,
            "OONI_FASTPATH_METRICS_PORT": str(fastpath_metrics),
            "OONI_FASTPATH_DB_URI": dsn,
            "OONI_FASTPATH_SPOOL_DIRECTORY": str(places.spool),
            "OONI_ANALYSIS_DB_URI": dsn,
            "OONI_UPLOADER_DB_URI": dsn,
            "OONI_UPLOADER_SPOOL_DIRECTORY": str(places.spool),
            "OONI_UPLOADER_STORE_URL": store,
        }
        self._defaults = {
            # An installation's own files under /etc do not concern a stack in a checkout.
            **{f"OONI_{app}_CONFIG": str(places.empty_config) for app in _APPS},
            "OONI_API_PROBE_CONFIG_DIRECTORY": "",
            "OONI_API_COLLECTOR_ID": "1",
            "OONI_API_GRACEFUL_TIMEOUT_S": "5",
            # Nothing is mailed: the link to log in with is in the log of the API.
            "OONI_API_MAIL_TRANSPORT": "log",
            "OONI_API_LOGIN_REDIRECT_HOSTS": ",".join(_WEB_INTERFACES),
            "OONI_UPLOADER_COLLECTOR_ID": "1",
        }

    def environ(self, outer: Mapping[str, str] = os.environ) -> dict[str, str]:
        """Return the environment of the stack's programs: the outer one, with the stack's own addresses over it."""
        inherited = {name: value for name, value in outer.items() if name not in _NOT_INHERITED}
        return {**self._defaults, **inherited, **self._fixed}

    def overruled(self, outer: Mapping[str, str] = os.environ) -> list[str]:
        """Return the variables of the outer environment that the stack sets itself: it never leaves its directory."""
        return sorted(name for name, value in self._fixed.items() if outer.get(name, value) != value)


def answers(url: str) -> bool:
    """Tell whether a GET of `url` is answered with 200."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_HEALTH_TIMEOUT_S) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False

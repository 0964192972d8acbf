"""A real nginx with the configuration that the roles nginx and ooni_api deploy, in front of a real API.

The roles' own templates are rendered with the roles' own defaults; changed are paths, ports and the account alone. Log
lines go where the roles send them: access lines to a socket in place of the journal's, errors through nginx-errors.
"""

import getpass
import http.server
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import httpx
import jinja2
import yaml
from tests.slow_queries import eventually

ROOT = Path(__file__).resolve().parents[2]
NGINX, OONI_API = ROOT / "roles/nginx", ROOT / "roles/ooni_api"
NAME = "api.example.org"
PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
"""Where nginx is, which people do not always have in their PATH; None without one."""
SNIPPETS = ("acme-challenge.conf", "security-headers.conf", "proxy-headers.conf")
_EXPRESSION = re.compile(r"\{\{(.*)\}\}", re.DOTALL)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Api:
    """A real `ooni-api` on directories of its own."""

    def __init__(self, directory: Path, **settings: object) -> None:
        self.directory = directory
        (self.port,) = free_ports(1)
        self._settings = {
            "bind": f"127.0.0.1:{self.port}",
            "base_url": f"https://{NAME}",
            "workers": 1,
            "metrics_port": 0,
            "spool_directory": directory / "spool",
            "spool_min_free_bytes": 1024,
            "state_directory": directory / "state",
            "probe_config_directory": "",
            "store_url": f"file://{directory}/objects",
            "fastpath_url": "http://127.0.0.1:9",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        for name in ("objects", "state"):
            (self.directory / name).mkdir(exist_ok=True, parents=True, mode=0o700)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("OONI_", "PROMETHEUS_"))}
        environment |= {f"OONI_API_{key.upper()}": str(value) for key, value in self._settings.items()}
        with (self.directory / "api.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(Path(sys.executable).parent / "ooni-api")],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )
        eventually(self._answers, f"the API did not come up:\n{self.log()}")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log()
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/health").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """Stop it as systemd does."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(timeout=60)

    def freeze(self, *, frozen: bool) -> None:
        """Make all its processes stand still, or go on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)

    def log(self) -> str:
        """Return what it logged."""
        return (self.directory / "api.log").read_text(errors="replace")


class Helper:
    """A test helper, to which old probes send POST /; it keeps the headers that it was sent."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        helper = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                helper.headers = {name.lower(): value for name, value in self.headers.items()}
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_arguments: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()


class Front:
    """nginx in front of one API, with its sockets for log lines."""

    def __init__(self, api_port: int, **variables: object) -> None:
        # Not pytest's directory: paths of sockets are short.
        self.directory = Path(tempfile.mkdtemp(prefix="front-"))
        self.plain_port, self.tls_port, self.tor_port, self._status_port = free_ports(4)
        self.lines: list[str] = []
        self._etc = self.directory / "etc"
        self._variables: dict[str, Any] = {
            **defaults(NGINX),
            **defaults(OONI_API),
            "ansible_managed": "Managed by the roles",
            "nginx_status_address": f"127.0.0.1:{self._status_port}",
            "nginx_acme_directory": f"{self.directory}/acme",
            "ooni_api_names": [NAME],
            "ooni_api_bind": f"127.0.0.1:{api_port}",
            "ooni_api_certificate": f"{self.directory}/certificate",
            "ooni_api_plain_listen": [f"127.0.0.1:{self.tor_port}"],
            "__nginx_has_ipv6": False,
            "__nginx_http2_directive": False,
            "__nginx_errors_socket": f"{self.directory}/errors.sock",
            "__nginx_sites": f"{self._etc}/sites-enabled",
            "__ooni_api_cache": f"{self.directory}/cache",
            **variables,
        }
        loader = jinja2.FileSystemLoader([NGINX / "templates", OONI_API / "templates"])
        self._jinja = jinja2.Environment(
            loader=loader,
            trim_blocks=True,
            keep_trailing_newline=True,
            undefined=jinja2.StrictUndefined,
            autoescape=False,
        )
        self._jinja.filters["ternary"] = lambda value, yes, no: yes if value else no
        self._variables["lookup"] = lambda _kind, name: self._rendered(name)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._sockets: list[socket.socket] = []

    @property
    def url(self) -> str:
        """Address without TLS, as the Tor service of the host uses it; clients there are this host."""
        return f"http://127.0.0.1:{self.tor_port}"

    def trust(self) -> ssl.SSLContext:
        """Return a context that believes the certificate of the API's name alone, whatever name is asked for."""
        context = ssl.create_default_context(cafile=f"{self.directory}/certificate/fullchain.pem")
        context.check_hostname = False
        return context

    def start(self) -> None:
        """Write the configuration, let nginx test it, start it."""
        for name in ("etc/sites-enabled", "etc/snippets", "etc/conf.d", "etc/modules-enabled", "acme", "cache", "temp"):
            (self.directory / name).mkdir(parents=True)
        shutil.copy("/etc/nginx/mime.types", self._etc)
        placeholder = [NGINX / "files/nginx-placeholder", self._variables["ooni_api_certificate"], NAME]
        subprocess.run(["sh", *placeholder], check=True)
        for name in SNIPPETS:
            self._write(f"snippets/{name}", self._rendered(f"{name}.j2"))
        self._write("nginx.conf", self._rendered("nginx.conf.j2"))
        self._write("sites-enabled/00-catch-all.conf", self._rendered("catch-all.conf.j2"))
        self._write("sites-enabled/ooni-api.conf", self._rendered("vhost.conf.j2", nginx_vhost=self._vhost()))
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        self._write("conf.d/paths.conf", "".join(f"{kind}_temp_path {self.directory}/temp/{kind};\n" for kind in kinds))
        self._collect()
        assert PROGRAM is not None
        command = [PROGRAM, "-p", str(self.directory), "-e", "stderr", "-c", f"{self._etc}/nginx.conf"]
        tested = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert tested.returncode == 0, tested.stderr
        # Only root can change the account of the workers.
        warnings = [line for line in tested.stderr.splitlines() if "[warn]" in line and '"user" directive' not in line]
        assert warnings == []
        with (self.directory / "nginx.log").open("ab") as log:
            self._processes.append(subprocess.Popen([*command, "-g", "daemon off;"], stdout=log, stderr=log))
        eventually(self._answers, "nginx did not come up")

    def stop(self) -> None:
        """Stop everything and remove its directory."""
        for process in reversed(self._processes):
            process.terminate()
            process.wait(timeout=30)
        for each in self._sockets:
            each.close()
        shutil.rmtree(self.directory)

    def requests_at_work(self) -> int:
        """Return how many requests are being answered at this moment."""
        said = httpx.get(f"http://127.0.0.1:{self._status_port}/nginx_status").text
        return int(said.partition("Writing: ")[2].split()[0]) - 1  # but this one

    def logged(self, word: str) -> str:
        """Return all log lines, once one of them has the word, with those of nginx's own output."""
        return str(eventually(lambda: word in self.all_lines() and self.all_lines(), f"no line has {word!r}"))

    def all_lines(self) -> str:
        """Return everything that was logged so far, of access, errors and nginx itself."""
        files = [self.directory / "nginx.log", self.directory / "errors.log"]
        return "\n".join([*self.lines, *(path.read_text() for path in files)])

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/whoami").status_code == 200
        except httpx.TransportError:
            return False

    def _vhost(self) -> dict[str, Any]:
        """Return what the role ooni_api hands to the role nginx."""
        tasks = yaml.safe_load((OONI_API / "tasks/web.yml").read_text())
        (given,) = (task["vars"]["nginx_vhost"] for task in tasks if "nginx_vhost" in task.get("vars", {}))
        return {key: self._evaluated(value) for key, value in given.items()}

    def _evaluated(self, text: str) -> Any:
        expression = _EXPRESSION.fullmatch(text)
        if expression is None:
            return text
        return self._jinja.compile_expression(expression[1], undefined_to_none=False)(**self._variables)

    def _rendered(self, template: str, **more: object) -> str:
        return self._jinja.get_template(template).render({**self._variables, **more})

    def _write(self, name: str, text: str) -> None:
        for before, after in (
            ("/etc/nginx/", f"{self._etc}/"),
            ("/run/nginx.pid", f"{self.directory}/nginx.pid"),
            ("/dev/log", f"{self.directory}/log.sock"),
            ("user www-data;", f"user {getpass.getuser()};"),
            ("listen 80", f"listen 127.0.0.1:{self.plain_port}"),
            ("listen 443", f"listen 127.0.0.1:{self.tls_port}"),
        ):
            text = text.replace(before, after)
        (self._etc / name).write_text(text)

    def _collect(self) -> None:
        journal, errors = (self._bound(name) for name in ("log.sock", "errors.sock"))
        threading.Thread(target=self._receive, args=(journal,), daemon=True).start()
        program = f"exec 3<&{errors.fileno()}; exec python3 -I {NGINX}/files/nginx-errors"
        with (self.directory / "errors.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(["bash", "-c", program], pass_fds=(errors.fileno(),), stdout=log, stderr=log)
            )

    def _bound(self, name: str) -> socket.socket:
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        bound.bind(f"{self.directory}/{name}")
        self._sockets.append(bound)
        return bound

    def _receive(self, journal: socket.socket) -> None:
        while True:
            try:
                self.lines.append(journal.recv(65536).decode("utf-8", "backslashreplace"))
            except OSError:  # closed
                return


def defaults(role: Path) -> dict[str, Any]:
    """Return the defaults of a role."""
    return dict(yaml.safe_load((role / "defaults/main.yml").read_text()))

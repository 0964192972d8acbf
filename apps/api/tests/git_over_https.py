"""For tests: repositories read and pushed to over https, by git's own server program, with a token for pushing."""

import base64
import os
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

EXECUTABLES = Path(subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True).stdout.strip())
BACKEND = EXECUTABLES / "git-http-backend"


class GitOverHttps:
    """Serves the repositories of a directory. Whoever pushes must send the token as a forge wants it.

    `certificate`: file with a key and its certificate.
    """

    def __init__(self, directory: Path, token: str, certificate: Path) -> None:
        self.refused = 0
        """Requests without the token that were for pushing."""
        self.told: list[str] = []
        """Tokens that came with requests for reading, which need none."""
        wanted = "Basic " + base64.b64encode(f"x-access-token:{token}".encode()).decode()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer()

            def do_POST(self) -> None:
                self.answer()

            def log_message(self, *_arguments: Any) -> None:
                pass

            def answer(self) -> None:
                url = urlsplit(self.path)
                sent = self.headers.get("Authorization", "")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if "git-receive-pack" in self.path and sent != wanted:
                    server.refused += 1
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", "Basic")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if "git-receive-pack" not in self.path and sent:
                    server.told.append(sent)
                environment = {
                    "PATH": os.environ["PATH"],
                    "GIT_CONFIG_GLOBAL": "/dev/null",
                    "GIT_PROJECT_ROOT": str(directory),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "REQUEST_METHOD": self.command,
                    "PATH_INFO": url.path,
                    "QUERY_STRING": url.query,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                    "REMOTE_USER": "editor",
                }
                output = subprocess.run([BACKEND], input=body, env=environment, check=True, capture_output=True).stdout
                head, _, data = output.partition(b"\r\n\r\n")
                fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
                self.send_response(int(fields.pop("Status", "200").split()[0]))
                for name, value in fields.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.base = f"https://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

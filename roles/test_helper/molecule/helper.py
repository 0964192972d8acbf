#!/usr/bin/python3 -I
"""Stands for a helper's static binary in the tests of this role: answers with what it can see of the host."""

import http.server
import json
import os
import sys

address = sys.argv[2] if "--listen" in sys.argv else "127.0.0.1:8080"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers everything."""

    def do_POST(self) -> None:
        """Echo the body beside what is visible."""
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        self.answer(body)

    def do_GET(self) -> None:
        """Answer without a body."""
        self.answer("")

    def answer(self, body: str) -> None:
        """Say who asks and what this process can see."""
        seen = {
            "body": body,
            "client": self.headers["X-Real-IP"],
            "arguments": sys.argv[1:],
            "greeting": os.environ.get("GREETING"),
            "reads_shadow": os.access("/etc/shadow", os.R_OK),
            "writes_etc": os.access("/etc", os.W_OK),
            "user": os.getuid(),
        }
        text = json.dumps(seen).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


host, _, port = address.rpartition(":")
http.server.ThreadingHTTPServer((host, int(port)), Handler).serve_forever()

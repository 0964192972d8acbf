"""For tests: the maintainers of the test lists, with a real git repository, and a forge that speaks HTTP.

No forge can be installed here, so the server plays the four calls that are made, by what GitHub documents: it knows
pull requests, refuses a branch that was not pushed, and a second open pull request of the same branch.
"""

import json
import os
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

HEADER = "url,category_code,category_description,date_added,source,notes\n"
GLOBAL = (
    HEADER + "https://www.example.org/,NEWS,News Media,2020-01-01,somebody,\n"
    "https://www.example.com/,COMT,Communication Tools,2020-01-01,somebody,on both lists\n"
)
ITALY = (
    HEADER + "https://it.example.org/,NEWS,News Media,2019-05-01,somebody,\n"
    'https://it.example.net/,FILE,File-sharing,2019-05-01,somebody,"a, ""quoted"" note"\n'
    "https://it.example.com/a,HUMR,an old name,2019-05-01,somebody,\n"
)
FRANCE = HEADER.replace("\n", "\r\n") + "https://fr.example.org/,NEWS,News Media,2019-05-01,somebody,no end of line"


def git(directory: Path, *arguments: str) -> str:
    """Run git as the maintainers do."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{role}_NAME": "Maintainer" for role in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{role}_EMAIL": "maintainer@example.org" for role in ("AUTHOR", "COMMITTER")},
    }
    done = subprocess.run(["git", *arguments], cwd=directory, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode("utf-8", "surrogateescape")


class Maintainers:
    """The repository of the lists: `origin` is bare, in `work` the maintainers work."""

    def __init__(self, directory: Path) -> None:
        self.origin, self.work = directory / "origin.git", directory / "work"
        (self.work / "lists").mkdir(parents=True)
        git(self.work, "init", "--quiet", "--initial-branch=master")
        (self.work / "README.md").write_text("Test lists\n")
        for name, text in (("global", GLOBAL), ("it", ITALY), ("fr", FRANCE)):
            (self.work / "lists" / f"{name}.csv").write_bytes(text.encode())
        (self.work / "lists" / "00-LEGEND.csv").write_text("Code,Description\n")
        git(self.work, "add", ".")
        git(self.work, "commit", "--quiet", "-m", "Lists")
        git(directory, "clone", "--quiet", "--bare", str(self.work), str(self.origin))

    def write(self, name: str, text: str | bytes) -> None:
        """Put another list in place of one."""
        data = text.encode() if isinstance(text, str) else text
        (self.work / "lists" / f"{name}.csv").write_bytes(data)
        git(self.work, "add", ".")
        git(self.work, "commit", "--quiet", "-m", f"Edit {name}")
        git(self.work, "push", "--quiet", str(self.origin), "master")

    def read(self, name: str, branch: str = "master") -> str:
        """Return a list on a branch."""
        return git(self.origin, "show", f"{branch}:lists/{name}.csv")

    def branches(self) -> list[str]:
        """Return the branches of proposals."""
        found = git(self.origin, "for-each-ref", "--format=%(refname:short)", "refs/heads/test-list-changes")
        return found.split()

    def merge(self, branch: str) -> None:
        """Take a branch in."""
        git(self.work, "fetch", "--quiet", str(self.origin), branch)
        git(self.work, "merge", "--quiet", "--no-edit", "FETCH_HEAD")
        git(self.work, "push", "--quiet", str(self.origin), "master")


class ForgeServer:
    """A forge for the repository `example/test-lists`."""

    def __init__(self, maintainers: Maintainers) -> None:
        self.maintainers = maintainers
        self.pulls: list[dict[str, Any]] = []
        self.calls: list[tuple[str, str]] = []
        self.tokens: set[str] = set()
        self.refuse: dict[str, int] = {}
        """Statuses that requests are refused with, by method."""
        self.after_open: Callable[[], None] = lambda: None
        """Called when a pull request was opened, before the reply is sent."""
        self.after_close: Callable[[], None] = lambda: None
        """The same when one was closed."""
        self.lock = threading.Lock()
        forge = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                forge.answer(self, "GET")

            def do_POST(self) -> None:
                forge.answer(self, "POST")

            def do_PATCH(self) -> None:
                forge.answer(self, "PATCH")

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.api = f"{self.base}/repos/example/test-lists"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def open_pulls(self) -> list[dict[str, Any]]:
        return [pull for pull in self.pulls if pull["state"] == "open"]

    def answer(self, handler: BaseHTTPRequestHandler, method: str) -> None:
        length = int(handler.headers.get("Content-Length", 0))
        body = json.loads(handler.rfile.read(length)) if length else {}
        self.tokens.add(handler.headers.get("Authorization", ""))
        url = urlsplit(handler.path)
        path = url.path.removeprefix("/repos/example/test-lists")
        with self.lock:
            self.calls.append((method, path))
            status = self.refuse.get(method)
            reply: Any = {"message": "refused"}
            if status is None:
                status, reply = self.reply(method, path, parse_qs(url.query), body)
        if (method, status) == ("POST", 201):
            self.after_open()
        elif (method, status) == ("PATCH", 200):
            self.after_close()
        data = json.dumps(reply).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    def reply(self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/pulls" and method == "GET":
            wanted = query["head"][0].removeprefix("example:")
            return 200, [pull for pull in self.open_pulls() if pull["head"]["ref"] == wanted]
        if path == "/pulls" and method == "POST":
            branch = body["head"]
            if branch not in self.maintainers.branches() or any(p["head"]["ref"] == branch for p in self.open_pulls()):
                return 422, {"message": "Validation Failed"}
            number = len(self.pulls) + 1
            page = f"{self.base}/example/test-lists/pull/{number}"
            pull = {"number": number, "state": "open", "html_url": page, "url": f"{self.api}/pulls/{number}", **body}
            self.pulls.append({**pull, "head": {"ref": branch}})
            return 201, self.pulls[-1]
        number = int(path.removeprefix("/pulls/"))
        if not 0 < number <= len(self.pulls):
            return 404, {"message": "Not Found"}
        if method == "PATCH":
            self.pulls[number - 1]["state"] = body["state"]
        return 200, self.pulls[number - 1]

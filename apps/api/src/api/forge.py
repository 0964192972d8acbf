"""Where changes to the test lists are proposed: pull requests at a forge with GitHub's REST API, or branches alone.

Four calls are made: find the open pull request of a branch, open one, look at one, close one. The host is that of the
settings whatever replies say, redirects are not followed, and replies are bounded.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from api.testlist_repository import ListRepository, RepositoryUnavailable, read_token

TIMEOUT_S = 8.0
"""Longest silence of the forge, in seconds."""

CALL_S = 20.0
"""Longest time of one call, in seconds."""

LONGEST_BODY = 60_000
"""Longest text of a pull request, in characters; GitHub takes 65,536."""

_LARGEST_REPLY = 4 * 1024 * 1024
_NUMBER = re.compile(r"[0-9]{1,12}", re.ASCII)
_OWNER = re.compile(r"/repos/([^/]+)/[^/]+\Z")
_PAGE = re.compile(r"https?://[!-~]{1,1900}", re.ASCII)


class ForgeUnavailable(Exception):
    """The forge did not do what it was asked; the text says why."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A proposal. `proposal_id`: its address at the API; `page_url`: its page for people, None without one."""

    proposal_id: str
    page_url: str | None


class Forge(Protocol):
    """Where proposals are. Every method raises ForgeUnavailable."""

    has_discussion: bool
    """Whether the text of a proposal is shown beside it, so that the commit need not hold it."""

    def open(self, branch: str, title: str, body: str) -> Opened:
        """Return the open proposal of a branch that was pushed; one is made when there is none."""

    def is_open(self, branch: str, proposal_id: str) -> bool:
        """Return whether a proposal was neither taken nor refused yet."""

    def close(self, branch: str, proposal_id: str | None) -> None:
        """Close a proposal if it is open; without an identifier it is looked for by its branch."""


class BranchesAlone:
    """Without a forge: the branch is the proposal, until somebody deletes it."""

    has_discussion = False

    def __init__(self, repository: ListRepository) -> None:
        """Take the repository that branches are pushed to."""
        self._repository = repository

    def open(self, branch: str, title: str, body: str) -> Opened:  # noqa: ARG002 the commit says it
        """Return the branch."""
        return Opened(branch, None)

    def is_open(self, branch: str, proposal_id: str) -> bool:  # noqa: ARG002 it is the branch
        """Return whether the branch is there."""
        try:
            return self._repository.has_branch(branch)
        except RepositoryUnavailable as error:
            raise ForgeUnavailable(str(error)) from error

    def close(self, branch: str, proposal_id: str | None) -> None:  # noqa: ARG002 it is the branch
        """Delete the branch."""
        try:
            self._repository.delete_branch(branch)
        except RepositoryUnavailable as error:
            raise ForgeUnavailable(str(error)) from error


class RestForge:
    """A forge with GitHub's REST API."""

    has_discussion = True

    def __init__(self, api: str, *, token_file: Path | None, base: str, fork_owner: str = "") -> None:
        """Take where pull requests are opened.

        Args:
            api: address of the repository at the API, such as https://api.github.com/repos/owner/name.
            token_file: file with the token; read for each call, so it can be replaced.
            base: the branch that changes shall go to.
            fork_owner: owner of the repository that branches are pushed to, when it is another one.
        """
        self._api = api
        self._token_file = token_file
        self._base = base
        owner = _OWNER.search(api)
        self._owner = fork_owner or (owner[1] if owner else "")
        self._prefix = f"{fork_owner}:" if fork_owner else ""

    def open(self, branch: str, title: str, body: str) -> Opened:
        """Return the open pull request of `branch`, made if need be."""
        found = self._find(branch)
        if found is not None:
            return found
        wanted = {"title": title, "body": body, "head": f"{self._prefix}{branch}", "base": self._base}
        status, reply = self._call("POST", "/pulls", wanted)
        if status == 422:  # somebody was faster, or the forge had not noticed the last one yet
            found = self._find(branch)
            if found is not None:
                return found
        if status != 201:
            raise ForgeUnavailable(f"opening a pull request was answered with {status}: {_message(reply)}")
        return self._opened(reply)

    def is_open(self, branch: str, proposal_id: str) -> bool:  # noqa: ARG002 its number says which
        """Return whether the pull request is open."""
        status, reply = self._call("GET", self._path(proposal_id))
        if status != 200 or not isinstance(reply, dict) or reply.get("state") not in {"open", "closed"}:
            raise ForgeUnavailable(f"a look at a pull request was answered with {status}: {_message(reply)}")
        return bool(reply["state"] == "open")

    def close(self, branch: str, proposal_id: str | None) -> None:
        """Close the pull request."""
        if proposal_id is None:
            found = self._find(branch)
            if found is None:
                return
            proposal_id = found.proposal_id
        elif not self.is_open(branch, proposal_id):
            return
        status, reply = self._call("PATCH", self._path(proposal_id), {"state": "closed"})
        if status != 200 or not isinstance(reply, dict) or reply.get("state") != "closed":
            raise ForgeUnavailable(f"closing a pull request was answered with {status}: {_message(reply)}")

    def _find(self, branch: str) -> Opened | None:
        query = {"head": f"{self._owner}:{branch}", "state": "open"}
        status, reply = self._call("GET", "/pulls", query=query)
        if status != 200 or not isinstance(reply, list):
            raise ForgeUnavailable(f"the list of pull requests was answered with {status}: {_message(reply)}")
        for each in reply:
            # Not every forge knows the parameter `head`; without it, all open ones are listed.
            if isinstance(each, dict) and isinstance(each.get("head"), dict) and each["head"].get("ref") == branch:
                return self._opened(each)
        return None

    def _opened(self, reply: Any) -> Opened:
        number = reply.get("number") if isinstance(reply, dict) else None
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ForgeUnavailable("a pull request has no number")
        page = reply.get("html_url")
        shown = page if isinstance(page, str) and _PAGE.fullmatch(page) else None
        return Opened(f"{self._api}/pulls/{number}", shown)

    def _path(self, proposal_id: str) -> str:
        number = proposal_id.rpartition("/")[2]
        if not _NUMBER.fullmatch(number):
            raise ForgeUnavailable(f"{proposal_id} is no pull request")
        return f"/pulls/{number}"

    def _call(
        self, method: str, path: str, body: object = None, *, query: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Return the status and the JSON of a reply, None for what is no JSON."""
        deadline = time.monotonic() + CALL_S
        headers = {"Accept": "application/vnd.github+json", "User-Agent": "ooni-api"}
        try:
            if self._token_file is not None:
                headers["Authorization"] = f"Bearer {read_token(self._token_file)}"
            with (
                httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client,
                client.stream(method, f"{self._api}{path}", headers=headers, json=body, params=query) as response,
            ):
                data = bytearray()
                for piece in response.iter_bytes():
                    data += piece
                    if len(data) > _LARGEST_REPLY or time.monotonic() > deadline:
                        raise ForgeUnavailable("the reply is too long, or takes too long")
                return response.status_code, _parsed(bytes(data))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise ForgeUnavailable(f"{type(error).__name__}: {error}") from error


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _message(reply: Any) -> str:
    text = reply.get("message") if isinstance(reply, dict) else None
    return " ".join(text.split())[:200] if isinstance(text, str) else "no message"

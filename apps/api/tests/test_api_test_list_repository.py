"""The clone of the test lists: refreshed, damaged, cut off; the git program without anything from outside."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from git_over_https import GitOverHttps
from list_maintainers import GLOBAL, ITALY, Maintainers, git
from mail_server import make_certificate

from api import git_command, testlist_repository
from api.config import ApiSettings, check
from api.git_command import Git, GitError
from api.testlist_repository import Author, ListRepository, RepositoryUnavailable, read_token
from core.config import ConfigError

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl: apt-get install openssl")

AUTHOR = Author("Lists", "lists@example.org")


@pytest.fixture
def maintainers(tmp_path: Path) -> Maintainers:
    return Maintainers(tmp_path)


@pytest.fixture
def repository(maintainers: Maintainers, tmp_path: Path) -> ListRepository:
    return made(maintainers, tmp_path)


def made(maintainers: Maintainers, directory: Path, **more: object) -> ListRepository:
    origin = str(maintainers.origin)
    settings = {"origin": origin, "branch": "master", "push": origin, "author": AUTHOR, **more}
    return ListRepository(directory / "state", **settings)


def until(condition: object) -> None:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_the_first_who_asks_gets_the_lists(repository: ListRepository) -> None:
    lists = repository.lists()
    assert set(lists.blobs) == {"global", "it", "fr"}
    assert len(lists.entries("it")) == 3
    assert lists.entries("de") == ()
    assert lists.file("de") is None


def test_many_who_ask_first_get_the_same(maintainers: Maintainers, tmp_path: Path) -> None:
    """Also those of other workers, which have the same clone."""
    workers = [made(maintainers, tmp_path) for _ in range(3)]
    found: list[str] = []
    threads = [threading.Thread(target=lambda each=each: found.append(each.lists().commit)) for each in workers * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


def test_an_old_clone_serves_while_it_is_refreshed(maintainers: Maintainers, tmp_path: Path) -> None:
    repository = made(maintainers, tmp_path, refresh_s=0.0, retry_s=0.0)
    before = repository.lists()
    maintainers.write("it", ITALY + "https://it.example.org/2,NEWS,News Media,2024-01-31,me,\n")
    until(lambda: repository.lists().commit != before.commit)
    assert len(repository.lists().entries("it")) == 4
    assert len(before.entries("it")) == 3


def test_a_young_clone_is_not_refreshed(maintainers: Maintainers, repository: ListRepository) -> None:
    before = repository.lists()
    maintainers.write("it", ITALY + "https://it.example.org/2,NEWS,News Media,2024-01-31,me,\n")
    assert repository.lists().commit == before.commit
    assert repository.fresh().commit != before.commit


def test_a_history_that_was_rewritten_is_taken(maintainers: Maintainers, repository: ListRepository) -> None:
    before = repository.lists()
    git(maintainers.work, "commit", "--quiet", "--amend", "-m", "Other lists")
    git(maintainers.work, "push", "--quiet", "--force", str(maintainers.origin), "master")
    assert repository.fresh().commit != before.commit


def test_a_repository_that_is_away(maintainers: Maintainers, tmp_path: Path) -> None:
    repository = made(maintainers, tmp_path, refresh_s=0.0, retry_s=0.0)
    before = repository.lists()
    maintainers.origin.rename(tmp_path / "away")
    with pytest.raises(RepositoryUnavailable):
        repository.fresh()
    assert repository.lists().commit == before.commit


@pytest.mark.parametrize("damage", ["objects", "HEAD", "refs", "everything"])
def test_a_damaged_clone_is_made_anew(maintainers: Maintainers, tmp_path: Path, damage: str) -> None:
    made(maintainers, tmp_path).lists()
    clone = tmp_path / "state" / testlist_repository.DIRECTORY
    for path in sorted(clone.rglob("*"), reverse=True):
        name = path.relative_to(clone).parts[0]
        if path.is_file() and (
            damage == "everything" or name == damage or (damage == "refs" and name == "packed-refs")
        ):
            path.chmod(0o600)
            path.write_bytes(b"x")
    repository = made(maintainers, tmp_path, retry_s=0.0)

    def readable() -> bool:
        try:
            return len(repository.lists().entries("it")) == 3
        except RepositoryUnavailable:
            return False

    until(readable)


def test_a_list_without_its_first_line_is_damaged(maintainers: Maintainers, repository: ListRepository) -> None:
    maintainers.write("it", "https://it.example.org/,NEWS,News Media,2019-05-01,somebody,\n")
    lists = repository.lists()
    with pytest.raises(RepositoryUnavailable, match="the list it is damaged"):
        lists.entries("it")
    assert len(lists.entries("global")) == 2


def test_a_link_is_no_list(maintainers: Maintainers, repository: ListRepository) -> None:
    (maintainers.work / "lists" / "de.csv").symlink_to("/etc/passwd")
    maintainers.write("it", ITALY)
    assert "de" not in repository.lists().blobs


def test_pushing_makes_one_commit_and_can_be_done_again(maintainers: Maintainers, repository: ListRepository) -> None:
    lists = repository.lists()
    for text in (ITALY + "x\n", ITALY + "y\n"):
        repository.push(lists, {"it": text.encode()}, "Subject\n", "test-list-changes/1")
        assert maintainers.read("it", "test-list-changes/1") == text
    listing = git(maintainers.origin, "ls-tree", "-r", "test-list-changes/1")
    assert [line for line in listing.splitlines() if line.endswith("it.csv")] != []
    before = git(maintainers.origin, "ls-tree", "-r", "master").splitlines()
    differing = set(before) ^ set(listing.splitlines())
    assert {line.rpartition("\t")[2] for line in differing} == {"lists/it.csv"}
    assert git(maintainers.origin, "rev-list", "--count", "master..test-list-changes/1").strip() == "1"
    assert repository.has_branch("test-list-changes/1")
    repository.delete_branch("test-list-changes/1")
    repository.delete_branch("test-list-changes/1")
    assert not repository.has_branch("test-list-changes/1")


def test_pushing_needs_no_other_repository_to_be_up_to_date(maintainers: Maintainers, tmp_path: Path) -> None:
    """A fork that lags behind takes a branch on top of what it has not seen."""
    fork = tmp_path / "fork.git"
    git(tmp_path, "clone", "--quiet", "--bare", str(maintainers.origin), str(fork))
    maintainers.write("global", GLOBAL + "https://www.example.org/2,NEWS,News Media,2024-01-31,me,\n")
    repository = made(maintainers, tmp_path, push=str(fork))
    repository.push(repository.lists(), {"it": ITALY.encode()}, "Subject\n", "test-list-changes/1")
    assert git(fork, "log", "--format=%s", "test-list-changes/1").split() == ["Subject", "Edit", "global", "Lists"]
    assert maintainers.branches() == []


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The real git, started by a script that writes down its arguments and its environment."""
    log = tmp_path / "recorded"
    real = next(path for each in os.environ["PATH"].split(":") if (path := Path(each) / "git").is_file())
    script = tmp_path / "bin" / "git"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\n{{ echo "ARGUMENTS $*"; env; }} >> {log}\nexec {real} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("GIT_TRACE", "1")
    monkeypatch.setenv("OONI_API_DB_URI", "a secret")
    return log


def test_a_token_is_in_no_arguments_and_nothing_else_is_in_the_environment(
    recording: Path, maintainers: Maintainers, tmp_path: Path
) -> None:
    """Pushing over https to nobody: what matters is how git was started."""
    token_file = tmp_path / "token"
    token_file.write_text("very-secret\n")
    url = "https://127.0.0.1:1/example/lists.git"
    repository = made(maintainers, tmp_path, push=url, token_file=token_file)
    lists = repository.lists()
    with pytest.raises(RepositoryUnavailable) as failure:
        repository.push(lists, {"it": ITALY.encode()}, "Subject\n", "test-list-changes/1")
    text = recording.read_text()
    encoded = "eC1hY2Nlc3MtdG9rZW46dmVyeS1zZWNyZXQ="
    arguments = [line for line in text.splitlines() if line.startswith("ARGUMENTS")]
    assert f"ARGUMENTS push --quiet --force --no-verify -- {url}" in "\n".join(arguments)
    assert f"Authorization: Basic {encoded}" in text
    assert f"=http.{url}.extraHeader" in text
    for secret in ("very-secret", encoded):
        assert secret not in "\n".join(arguments)
        assert secret not in str(failure.value)
    assert "a secret" not in text
    assert "GIT_TRACE" not in text
    assert "GIT_TERMINAL_PROMPT=0" in text


@pytest.fixture
def https(maintainers: Maintainers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitOverHttps]:
    """The repository over https, with a certificate that is trusted here."""
    certificate = make_certificate(tmp_path, "IP:127.0.0.1")
    trusted = {**git_command.CONFIGURATION, "http.sslCAInfo": str(certificate)}
    monkeypatch.setattr(git_command, "CONFIGURATION", trusted)
    server = GitOverHttps(maintainers.origin.parent, "very-secret", certificate)
    yield server
    server.stop()


@needs_openssl
def test_pushing_over_https_with_a_token(maintainers: Maintainers, tmp_path: Path, https: GitOverHttps) -> None:
    """By git's own server program; reading needs no token, and other addresses are not told it."""
    (tmp_path / "token").write_text("very-secret\n")
    url = f"{https.base}/origin.git"
    reader = made(maintainers, tmp_path, origin=url, push=f"{https.base}/other.git", token_file=tmp_path / "token")
    assert len(reader.lists().entries("it")) == 3
    assert https.told == []
    repository = made(maintainers, tmp_path, origin=url, push=url, token_file=tmp_path / "token")
    repository.push(repository.fresh(), {"it": ITALY.encode() * 20_000}, "Subject\n", "test-list-changes/1")
    assert maintainers.branches() == ["test-list-changes/1"]
    assert https.refused == 0


@needs_openssl
@pytest.mark.parametrize("token", [None, "another"])
def test_pushing_over_https_without_the_token(
    maintainers: Maintainers, tmp_path: Path, https: GitOverHttps, token: str | None
) -> None:
    """It fails at once: nobody is asked for a password."""
    url = f"{https.base}/origin.git"
    if token:
        (tmp_path / "token").write_text(token)
    repository = made(maintainers, tmp_path, origin=url, push=url, token_file=tmp_path / "token" if token else None)
    with pytest.raises(RepositoryUnavailable, match="git push failed"):
        repository.push(repository.lists(), {"it": ITALY.encode()}, "Subject\n", "test-list-changes/1")
    assert https.refused > 0
    assert maintainers.branches() == []


def test_hooks_and_configuration_of_the_clone_do_nothing(
    maintainers: Maintainers, repository: ListRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = repository.lists()
    clone = tmp_path / "state" / testlist_repository.DIRECTORY
    ran = tmp_path / "ran"
    for name in ("pre-push", "reference-transaction", "post-merge"):
        (clone / "hooks").mkdir(exist_ok=True)
        hook = clone / "hooks" / name
        hook.write_text(f"#!/bin/sh\ntouch {ran}\n")
        hook.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text(f"[core]\n\thooksPath = {clone / 'hooks'}\n[user]\n\tname = Private Name\n")
    repository.fresh()
    repository.push(lists, {"it": ITALY.encode()}, "Subject\n", "test-list-changes/1")
    assert not ran.exists()
    assert "Private Name" not in git(maintainers.origin, "cat-file", "commit", "test-list-changes/1")


def test_other_protocols_are_not_spoken(maintainers: Maintainers, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for origin in (f"ext::touch {ran}", "http://127.0.0.1:1/x", "git://127.0.0.1:1/x"):
        with pytest.raises(RepositoryUnavailable):
            made(maintainers, tmp_path / origin[:4], origin=origin).lists()
    assert not ran.exists()
    with pytest.raises(GitError, match=r"transport 'ext' not allowed"):
        Git(maintainers.origin).run("ls-remote", "--", f"ext::touch {ran}", timeout_s=10)


def test_a_command_that_hangs_ends_with_all_that_it_started(tmp_path: Path) -> None:
    marker = tmp_path / "pid"
    script = f"!f() {{ sh -c 'echo $$ > {marker}; exec sleep 600' & wait; }}; f"
    with pytest.raises(GitError, match="longer than 1 seconds"):
        Git(tmp_path).run("hang", configuration={"alias.hang": script}, timeout_s=1.0)
    pid = int(marker.read_text())

    def gone() -> bool:
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    until(gone)


def test_a_host_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitError, match="Install the package git"):
        Git(tmp_path).run("version", timeout_s=5)


@pytest.mark.parametrize("content", ["", "two words", "x" * 2000, "ключ"])
def test_files_that_hold_no_token(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(OSError, match="must hold one token"):
        read_token(path)


@pytest.mark.parametrize(
    "repository",
    [
        "/srv/lists.git",
        "file:///srv/lists.git",
        "https://forge.example.org/o/lists.git",
        "ssh://git@forge.example.org:22/o/lists.git",
        "git@forge.example.org:o/lists.git",
    ],
)
def test_addresses_of_repositories(repository: str) -> None:
    check(ApiSettings(test_lists_repository=repository, test_lists_push_repository=repository))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(
            ({"test_lists_repository": address}, "test_lists_repository is no address")
            for address in (
                "lists",
                "-upload-pack=x",
                "--x@host:y",
                "ext::sh -c x",
                "http://forge.example.org/o/l.git",
                "git://forge.example.org/o/l.git",
                "https://name:secret@forge.example.org/o/l.git",
                "ssh://-oProxyCommand=x/y",
                "git@-oProxyCommand=x:y",
                "https://forge.example.org/a b",
                "/srv/\n",
            )
        ),
        ({"test_lists_push_repository": "/srv/lists"}, "test_lists_repository is not"),
        ({"test_lists_forge_api": "https://api.example.org/repos/o/r"}, "test_lists_repository is not"),
        *(
            ({"test_lists_branch": name}, "test_lists_branch")
            for name in ("", "-x", "a..b", "a b", "a//b", "a.lock", "a/", "a:b", "a/.b", "x" * 101)
        ),
        *(
            ({"test_lists_repository": "/srv/l", "test_lists_forge_api": api}, "test_lists_forge_api")
            for api in ("api.example.org", "https://api.example.org/repos/o/r/", "ftp://x/y", "https://u:p@x/y")
        ),
        ({"test_lists_fork_owner": "a b"}, "test_lists_fork_owner"),
        *(({"test_lists_author": author}, "test_lists_author") for author in ("", "Name", "Name <a b>", "A\nB <c>")),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_settings_that_are_wrong_are_named(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check(ApiSettings(**settings))

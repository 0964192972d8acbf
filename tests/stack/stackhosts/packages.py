"""Two versions of our Debian packages, built once per state of the tree."""

import hashlib
import os
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

from stackhosts import LOGS, ROOT

CACHE = ROOT / "run" / "stack-packages"
PREVIOUS_CACHE = ROOT / "run" / "stack-packages-previous"
NAMES = ("ooni-api", "fastpath", "analysis")
PR = "0"
OLD_BUILD, NEW_BUILD = "1", "2"


def build_new() -> list[Path]:
    """Return the packages of this tree, built now unless they were before."""
    directory = CACHE / _state_of_the_tree()
    found = sorted(directory.glob("*.deb"))
    if len(found) == len(NAMES):
        return found
    shutil.rmtree(CACHE, ignore_errors=True)  # packages of earlier states
    return _build(ROOT, directory, NEW_BUILD)


def old_release(new: list[Path]) -> tuple[list[Path], str]:
    """Return the packages to upgrade from, and a phrase that says what they are.

    They are those in PREVIOUS_PACKAGES, or built from the commit in packaging/previous-release. Where git does not have
    that commit (a shallow clone), the new ones under a lower number stand in: they prove the upgrade itself, not that
    old code gets along with a newer schema.
    """
    given = os.environ.get("PREVIOUS_PACKAGES")
    if given:
        found = sorted(Path(given).resolve().glob("*.deb"))
        assert len(found) == len(NAMES), f"PREVIOUS_PACKAGES={given} has to hold one package of each of {NAMES}"
        return found, f"packages in {given}"
    commit = previous_release()
    if _git("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0:
        return _built_from(commit), f"packages of commit {commit[:12]}"
    return [_renumbered(package) for package in new], "this tree's packages under a lower number, for want of history"


def previous_release() -> str:
    """Return the commit that packaging/previous-release names."""
    lines = (ROOT / "packaging" / "previous-release").read_text().splitlines()
    (commit,) = (line.strip() for line in lines if line.strip() and not line.startswith("#"))
    return commit


def version(package: Path) -> str:
    """Return the version of a package file."""
    return _dpkg("--field", str(package), "Version").strip()


def _built_from(commit: str) -> list[Path]:
    directory = PREVIOUS_CACHE / commit
    found = sorted(directory.glob("*.deb"))
    if len(found) == len(NAMES):
        return found
    shutil.rmtree(PREVIOUS_CACHE, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        tree = Path(place) / "tree"
        _git("worktree", "prune")
        added = _git("worktree", "add", "--detach", str(tree), commit)
        assert added.returncode == 0, added.stderr
        try:
            return _build(tree, directory, OLD_BUILD)
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _build(tree: Path, directory: Path, build: str) -> list[Path]:
    work = directory.with_name("building")
    work.mkdir(parents=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"packages-{build}.log"
    with log.open("w") as out:
        environ = os.environ | {"PR": PR, "BUILD": build}
        command = ["packaging/build", "--output", str(work)]
        done = subprocess.run(command, cwd=tree, env=environ, stdout=out, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, f"packaging/build failed:\n{log.read_text()[-3000:]}"
    work.rename(directory)
    return sorted(directory.glob("*.deb"))


def _git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def _renumbered(package: Path) -> Path:
    target = package.parent / "old" / package.name.replace(f"-{NEW_BUILD}_", f"-{OLD_BUILD}_")
    if target.exists():
        return target
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=package.parent) as directory:
        tree = Path(directory) / "tree"
        _dpkg("--raw-extract", str(package), str(tree))
        control = tree / "DEBIAN" / "control"
        text = control.read_text()
        number = version(package)
        old = f"{number.removesuffix(f'-{NEW_BUILD}')}-{OLD_BUILD}"
        control.write_text(text.replace(f"Version: {number}\n", f"Version: {old}\n"))
        _dpkg("--root-owner-group", "-Zzstd", "-z1", "--build", str(tree), str(target))
    return target


def _dpkg(*arguments: str) -> str:
    return subprocess.run(["dpkg-deb", *arguments], check=True, capture_output=True, text=True).stdout


def _state_of_the_tree() -> str:
    descriptions = [tomllib.loads((ROOT / "packaging" / name / "package.toml").read_text()) for name in NAMES]
    apps = sorted({f"apps/{app}" for description in descriptions for app in description["apps"]})
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *apps, "packaging"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    digest = hashlib.sha256()
    for name in sorted(set(listing.decode().split("\0")) - {""}):
        path = ROOT / name
        if path.is_file() and "/tests/" not in name:
            digest.update(
                f"{name}\0{path.stat().st_mode & 0o111}\0".encode() + hashlib.sha256(path.read_bytes()).digest()
            )
    return digest.hexdigest()[:16]

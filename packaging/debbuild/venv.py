"""The virtual environment of a package: locked dependencies, then the apps, made ready for its place on the host."""

import os
import shutil
import subprocess
from pathlib import Path

from debbuild.spec import PACKAGING, ROOT, Package

# Tests of dependencies are of no use on a host.
_UNUSED_DIRECTORIES = ("tests", "test")

# Wheels take all that lies among the modules, so caches of tools (.mypy_cache and the like) are left behind before.
_NOT_SOURCE = (".*", "__pycache__", "*.py[cod]", "*.egg-info", "tests")


class BuildError(Exception):
    """A step of the build failed; the text says which and what to do."""


def run(*command: str | Path, environ: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command and return its standard output. Raises BuildError with what it said."""
    done = subprocess.run(  # noqa: S603 no shell, and every command is written in this package
        [str(part) for part in command], check=False, capture_output=True, text=True, env=environ, cwd=cwd
    )
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise BuildError(f"`{' '.join(map(str, command[:6]))} …` failed with exit code {done.returncode}:\n{said}")
    return done.stdout


def python_version(python: Path) -> tuple[int, int]:
    """Major and minor version of an interpreter."""
    major, minor = run(python, "-c", "import sys; print(*sys.version_info[:2])").split()
    return int(major), int(minor)


class Tools:
    """A virtual environment that only builds: pip and the apps' build backend."""

    def __init__(self, python: Path, work: Path, timestamp: int) -> None:
        """Make it in `work`, for the interpreter `python` of the target. Raises BuildError."""
        self._python = python
        self._work = work
        self._environ = {
            **os.environ,
            "SOURCE_DATE_EPOCH": str(timestamp),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_INPUT": "1",
        }
        self._root = work / "tools"
        self._wheels = work / "wheels"
        try:
            run(python, "-m", "venv", self._root)
        except BuildError as error:
            raise BuildError(
                f"{error}\nIs python3-venv missing? Install it with: sudo apt install python3-venv"
            ) from error
        self._pip("install", "--require-hashes", "-r", PACKAGING / "build.lock")

    def wheel(self, app: str) -> Path:
        """Build the wheel of an app, once. Raises BuildError."""
        target = self._wheels / app
        if not target.exists():
            # Out of the tree, which others may be using, and which may be read-only.
            source = self._work / "source" / app
            copy_source(ROOT / "apps" / app, source)
            self._pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", target, source)
        return next(target.glob("*.whl"))

    def make(self, package: Package, stage: Path) -> None:
        """Make the package's environment below `stage`, so that it works at `package.prefix`. Raises BuildError."""
        venv = stage / package.prefix.lstrip("/")
        run(self._python, "-m", "venv", "--without-pip", venv)
        pip = ("--python", venv / "bin" / "python3", "install", "--no-compile", "--no-deps", "--no-index")
        locked = ("--require-hashes", "--only-binary", ":all:", "-r", package.source / "requirements.lock")
        # Downloaded once for all packages, most of which share most of it.
        downloads = self._work / "downloads"
        self._pip("download", "--no-deps", "--dest", downloads, *locked)
        self._pip(*pip, "--find-links", downloads, *locked)
        self._pip(*pip, *(self.wheel(app) for app in package.apps))
        version = "python{}.{}".format(*python_version(self._python))
        site = venv / "lib" / version / "site-packages"
        _clean(venv, site, version)
        _write_commands(package, venv, stage)
        _compile(self._python, site, stage)

    def _pip(self, *arguments: str | Path) -> None:
        run(self._root / "bin" / "python3", "-m", "pip", "--quiet", *arguments, environ=self._environ, cwd=self._work)


def copy_source(app: Path, target: Path) -> None:
    """Copy what a wheel is built from: an app without its tests, and without what tools left there."""
    shutil.copytree(app, target, ignore=shutil.ignore_patterns(*_NOT_SOURCE))


def _clean(venv: Path, site: Path, version: str) -> None:
    """Remove what depends on where and when it was built, and what a host does not need."""
    for name in ("bin", "include"):
        for path in sorted((venv / name).iterdir()):
            if not (path.name.startswith("python") and path.is_symlink()):
                path.unlink() if path.is_file() or path.is_symlink() else shutil.rmtree(path)
    if not any((venv / "include").iterdir()):
        (venv / "include").rmdir()
    (venv / "lib64").unlink(missing_ok=True)
    for name in ("python", "python3", version):
        (venv / "bin" / name).unlink(missing_ok=True)
    # Debian's interpreter, so that its security updates count; the package depends on this very version.
    (venv / "bin" / "python3").symlink_to(f"/usr/bin/{version}")
    (venv / "bin" / "python").symlink_to("python3")
    (venv / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    for record in site.glob("*.dist-info/RECORD"):
        # pip recorded hashes of commands that name the build directory, and that are not part of the package.
        kept = [line for line in record.read_text("utf-8").splitlines() if not line.startswith("../../../")]
        kept = [line for line in kept if ".dist-info/direct_url.json," not in line]
        record.write_text("\n".join(kept) + "\n", "utf-8")
    for name in ("direct_url.json", "REQUESTED"):
        for path in site.glob(f"*.dist-info/{name}"):
            path.unlink()
    for path in [path for name in _UNUSED_DIRECTORIES for path in site.glob(f"*/{name}") if path.is_dir()]:
        shutil.rmtree(path)


def _write_commands(package: Package, venv: Path, stage: Path) -> None:
    """The commands in the environment's bin, isolated from the caller's Python settings, and links in /usr/bin."""
    (stage / "usr/bin").mkdir(parents=True, exist_ok=True)
    commands = {"database_upgrade_schema": "core.schema:main", **package.commands}
    for name, target in commands.items():
        module, function = target.split(":")
        script = venv / "bin" / name
        script.write_text(
            f"#!{package.prefix}/bin/python3 -I\n"
            f"import sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
        )
        script.chmod(0o755)
        if name in package.commands:
            (stage / "usr/bin" / name).symlink_to(f"../lib/{package.name}/bin/{name}")


def _compile(python: Path, site: Path, stage: Path) -> None:
    """Bytecode that needs no times, because units cannot write any and files get the time of the build."""
    arguments = ("-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", stage, "-p", "/")
    environ = {**os.environ, "PYTHONHASHSEED": "0"}
    run(python, "-m", "compileall", *arguments, site, environ=environ)


def target_python(environ: dict[str, str]) -> Path:
    """The interpreter that packages are built for: PACKAGES_PYTHON, else Debian's. Raises BuildError."""
    python = Path(environ.get("PACKAGES_PYTHON") or "/usr/bin/python3")
    if not python.exists():
        raise BuildError(f"{python} does not exist. Install it with: sudo apt install python3 python3-venv")
    if python_version(python) < (3, 11):
        raise BuildError(f"{python} is too old; Debian 12 (3.11) is the oldest release that packages are built for.")
    return python

"""From a staged tree to a .deb: control files, documentation, equal times and modes, dpkg-deb."""

import gzip
import os
import stat
from pathlib import Path

from debbuild.spec import PACKAGING, ROOT, Package, render_script, render_unit
from debbuild.venv import run

_ADMINISTRATION = "adduser, init-system-helpers (>= 1.54~)"
# Libraries that wheels with C++ in them take from the system.
_LIBRARIES = "libc6 (>= 2.36), libgcc-s1, libstdc++6, ca-certificates"


def stage_files(package: Package, stage: Path) -> None:
    """Put units, configuration and documentation below `stage`."""
    for template in package.units:
        _write(stage / "lib/systemd/system" / template.name, render_unit(template))
    for conffile in package.conffiles:
        # 0640 already in the archive: secrets are never readable, not even before the postinst runs.
        _write(stage / "etc/ooni" / conffile.name, conffile.read_text("utf-8"), mode=0o640)
    documents = stage / "usr/share/doc" / package.name
    for name, source in package.readme.items():
        if (ROOT / source).exists():
            _write(documents / name, (ROOT / source).read_text("utf-8"))
    _write(documents / "copyright", _copyright(package))
    overrides = (PACKAGING / "lintian-overrides").read_text("utf-8").replace("@package@", package.name)
    _write(stage / "usr/share/lintian/overrides" / package.name, overrides)


def write_changelog(package: Package, stage: Path, text: str) -> None:
    """Put the changelog in its place, compressed without a time in it."""
    path = stage / "usr/share/doc" / package.name / "changelog.Debian.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def write_control(
    package: Package, stage: Path, *, version: str, maintainer: str, python: tuple[int, int], architecture: str
) -> None:
    """Write DEBIAN/: control, conffiles, checksums and the maintainer scripts."""
    major, minor = python
    installed_kb = sum(path.lstat().st_size for path in stage.rglob("*") if not path.is_dir()) // 1024 + 1
    control = stage / "DEBIAN"
    needed = [f"python3 (>= {major}.{minor})", f"python3 (<< {major}.{minor + 1})", _LIBRARIES, _ADMINISTRATION]
    needed += package.needs
    checksums = run(
        "sh", "-c", "find . -type f ! -path './DEBIAN/*' -printf '%P\\0' | sort -z | xargs -0 md5sum", cwd=stage
    )
    description = "".join(f" {line}\n" if line else " .\n" for line in package.description.strip().splitlines())
    _write(
        control / "control",
        f"Package: {package.name}\n"
        f"Version: {version}\n"
        f"Architecture: {architecture}\n"
        f"Maintainer: {maintainer}\n"
        f"Installed-Size: {installed_kb}\n"
        f"Depends: {', '.join(needed)}\n"
        f"Section: {package.section}\n"
        "Priority: optional\n"
        f"Description: {package.summary}\n{description}",
    )
    _write(control / "conffiles", "".join(f"/etc/ooni/{path.name}\n" for path in package.conffiles))
    _write(control / "md5sums", checksums)
    for name in ("postinst", "prerm", "postrm"):
        _write(control / name, render_script(package, name), mode=0o755)


def archive(stage: Path, target: Path, timestamp: int) -> None:
    """Make the .deb; the same tree and the same time give the same bytes."""
    for path in [stage, *stage.rglob("*")]:
        if path.is_symlink():
            os.utime(path, (timestamp, timestamp), follow_symlinks=False)
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_dir() or (mode & 0o100 and ".so" not in path.suffixes):
            path.chmod(0o755)
        elif mode != 0o640:
            path.chmod(0o644)
        os.utime(path, (timestamp, timestamp))
    temporary = target.with_name(f".{target.name}.partial")
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(timestamp)}
    run("dpkg-deb", "--root-owner-group", "-Zxz", "-z6", "--build", stage, temporary, environ=environ)
    temporary.replace(target)


def architecture() -> str:
    """The architecture that packages built here run on, e.g. amd64."""
    return run("dpkg", "--print-architecture").strip()


def debian_release(os_release: Path = Path("/etc/os-release")) -> str:
    """The major number of the Debian release this is, e.g. 12; empty on anything else."""
    values = dict(line.split("=", 1) for line in os_release.read_text("utf-8").splitlines() if "=" in line)
    return values.get("VERSION_ID", "").strip('"') if values.get("ID", "").strip('"') == "debian" else ""


def _copyright(package: Package) -> str:
    licence = (ROOT / "LICENSE").read_text("utf-8").strip()
    data = [path for app in package.apps for path in sorted((ROOT / "apps" / app / "src").glob("*/LICENSE-*.txt"))]
    return (
        "The applications of this package are distributed under the licence below. The Python packages in its virtual\n"
        "environment come with licences of their own, in their *.dist-info directories.\n\n"
        f"{licence}\n"
        + "".join(
            f"\nData in {path.parent.name} come with this licence ({path.name}):\n\n{path.read_text('utf-8').strip()}\n"
            for path in data
        )
    )


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(mode)

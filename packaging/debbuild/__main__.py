"""`python3 -m debbuild [PACKAGE …]`: builds packages into dist/; `make packages` calls it in the right surroundings."""

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from debbuild import deb, spec, version
from debbuild.venv import BuildError, Tools, python_version, target_python


def main() -> int:
    """Build the packages named on the command line, or all. Exit codes: 0 done, 1 failed, 2 bad usage."""
    parser = argparse.ArgumentParser(prog="debbuild", description="Build Debian packages into dist/.")
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help=f"some of {', '.join(spec.NAMES)}; default: all")
    parser.add_argument("--output", type=Path, default=spec.ROOT / "dist", help="directory for the packages")
    options = parser.parse_args()
    try:
        packages = [spec.load(name) for name in options.packages or spec.NAMES]
        build(packages, options.output, dict(os.environ))
    except (spec.SpecError, version.VersionError, BuildError) as error:
        print(f"packages: {error}", file=sys.stderr)
        return 1
    return 0


def build(packages: list[spec.Package], output: Path, environ: dict[str, str]) -> list[Path]:
    """Build `packages` into `output`; return the .deb files. Raises SpecError, VersionError, BuildError."""
    release = deb.debian_release()
    if not release:
        raise BuildError("This is not Debian. Use `make packages`, which then builds in a container.")
    python = target_python(environ)
    changelogs = {package.name: version.read_changelog(package.source / "changelog") for package in packages}
    timestamp = version.source_date(environ, next(iter(changelogs.values())))
    output.mkdir(parents=True, exist_ok=True)
    built = []
    with tempfile.TemporaryDirectory(prefix="packages-") as directory:
        work = Path(directory)
        tools = Tools(python, work, timestamp)
        for package in packages:
            started = time.monotonic()
            changelog = changelogs[package.name]
            number = version.full_version(changelog.semver, environ, release)
            stage = work / "stage" / package.name
            stage.mkdir(parents=True)
            tools.make(package, stage)
            deb.stage_files(package, stage)
            text = version.build_changelog(changelog, number, environ.get("COMMIT", ""), timestamp)
            deb.write_changelog(package, stage, text)
            architecture = deb.architecture()
            deb.write_control(
                package,
                stage,
                version=number,
                maintainer=changelog.maintainer,
                python=python_version(python),
                architecture=architecture,
            )
            target = output / f"{package.name}_{number}_{architecture}.deb"
            deb.archive(stage, target, timestamp)
            shutil.rmtree(stage)
            size = target.stat().st_size / 1e6
            print(f"packages: {target.name}, {size:.1f} MB, {time.monotonic() - started:.0f} s", flush=True)
            built.append(target)
    return built


if __name__ == "__main__":
    sys.exit(main())

"""What each package is: `packaging/<name>/package.toml` and the files beside it."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGING = ROOT / "packaging"
NAMES = ("ooni-api", "fastpath", "analysis")

SPOOL = "/var/lib/ooniapi/measurements"
SPOOL_GROUP = "oonispool"
SPOOL_PACKAGES = ("ooni-api", "fastpath")
SANDBOX = "@sandbox@"


class SpecError(Exception):
    """A description of a package is not complete or not consistent; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Package:
    """One Debian package."""

    name: str
    summary: str
    description: str
    section: str
    apps: tuple[str, ...]
    user: str
    home: str
    directories: dict[str, str]
    keep: tuple[str, ...]
    spool: bool
    needs: tuple[str, ...]
    """Packages of Debian that it calls, beside what all of ours need."""
    commands: dict[str, str]
    readme: dict[str, str]

    @property
    def source(self) -> Path:
        """The directory that describes the package."""
        return PACKAGING / self.name

    @property
    def prefix(self) -> str:
        """Where the package's virtual environment is on the host."""
        return f"/usr/lib/{self.name}"

    @property
    def units(self) -> list[Path]:
        """The templates of its systemd units."""
        return sorted([*self.source.glob("*.service"), *self.source.glob("*.timer")])

    @property
    def started(self) -> list[str]:
        """The units that are enabled and started: timers, and services without a timer of the same name."""
        names = {path.name for path in self.units}
        return sorted(name for name in names if not (name.endswith(".service") and _timer(name) in names))

    @property
    def conffiles(self) -> list[Path]:
        """Its configuration files, as they are first installed."""
        return sorted((self.source / "etc").glob("*.toml"))


def load(name: str) -> Package:
    """Read the description of package `name`. Raises SpecError."""
    path = PACKAGING / name / "package.toml"
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SpecError(f"There is no package {name}. Known are: {', '.join(NAMES)}.") from None
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path} is not TOML: {error}.") from error
    try:
        return Package(
            name=name,
            summary=values["summary"],
            description=values["description"],
            section=values["section"],
            apps=tuple(values["apps"]),
            user=values["user"],
            home=values["home"],
            directories=values["directories"],
            keep=tuple(values["keep"]),
            spool=values["spool"],
            needs=tuple(values.get("needs", ())),
            commands=values["commands"],
            readme=values["readme"],
        )
    except KeyError as error:
        raise SpecError(f"{path} lacks {error}. See the other packages for what it means.") from error


def render_unit(template: Path) -> str:
    """The unit as it is installed: `@sandbox@` becomes the sandbox that all units share. Raises SpecError."""
    sandbox = (PACKAGING / "units" / "sandbox.conf").read_text("utf-8").rstrip("\n")
    lines = template.read_text("utf-8").splitlines()
    if template.suffix == ".service" and lines.count(SANDBOX) != 1:
        raise SpecError(f"{template} needs exactly one line {SANDBOX}.")
    return "\n".join(sandbox if line == SANDBOX else line for line in lines) + "\n"


def render_script(package: Package, name: str) -> str:
    """A maintainer script (postinst, prerm, postrm): one text for all packages, with the package's values in it."""
    scripts = PACKAGING / "scripts"
    values = {
        "package": package.name,
        "user": package.user,
        "home": package.home,
        "prefix": package.prefix,
        "started": " ".join(package.started),
        "units": " ".join(path.name for path in package.units),
        "conffiles": " ".join(f"/etc/ooni/{path.name}" for path in package.conffiles),
        "directories": " ".join(f"{mode}:{path}" for path, mode in sorted(package.directories.items())),
        "keep": " ".join(package.keep),
        "spool": SPOOL if package.spool else "",
        "spool_group": SPOOL_GROUP,
        "spool_peers": " ".join(peer for peer in SPOOL_PACKAGES if peer != package.name) if package.spool else "",
    }
    text = (scripts / "head.sh").read_text("utf-8") + (scripts / f"{name}.sh").read_text("utf-8")
    rendered = re.sub(r"@([a-z_]+)@", lambda match: values[match[1]], text)
    return "".join(line for line in rendered.splitlines(keepends=True) if not line.startswith("# shellcheck"))


def _timer(service: str) -> str:
    return f"{service.removesuffix('.service')}.timer"

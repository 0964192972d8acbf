"""Programs that measure: releases over the years, of which most people have a new one and some a very old one."""

import random
from dataclasses import dataclass
from datetime import date, timedelta


@dataclass(frozen=True, slots=True)
class Program:
    """A program: its part of all reports while it exists, its releases from `first` on, and what it runs on."""

    name: str
    share: float
    first: date
    major: int
    platforms: tuple[tuple[str, str], ...]
    engine: str


_ANDROID = (("android", "arm64"), ("android", "arm64"), ("android", "arm"))
_DESKTOP = (("windows", "amd64"), ("macos", "amd64"), ("macos", "arm64"))
_SERVER = (("linux", "amd64"), ("linux", "arm64"), ("linux", "arm"))
_BOARD = (("linux", "amd64"), ("lepidopter", "arm"))
_ENGINE = "ooniprobe-engine"

PROGRAMS = (
    Program("ooniprobe-android", 0.40, date(2017, 2, 1), 1, _ANDROID, _ENGINE),
    Program("ooniprobe-android-unattended", 0.25, date(2021, 9, 1), 3, _ANDROID, _ENGINE),
    Program("ooniprobe-ios", 0.06, date(2017, 2, 1), 1, (("ios", "arm64"),), _ENGINE),
    Program("ooniprobe-desktop", 0.04, date(2020, 5, 1), 3, _DESKTOP, _ENGINE),
    Program("ooniprobe-desktop-unattended", 0.06, date(2021, 5, 1), 3, _DESKTOP, _ENGINE),
    Program("ooniprobe-cli", 0.05, date(2020, 3, 1), 3, _SERVER, _ENGINE),
    Program("ooniprobe-cli-unattended", 0.12, date(2021, 3, 1), 3, _SERVER, _ENGINE),
    Program("miniooni", 0.02, date(2020, 1, 1), 0, (("linux", "amd64"), ("macos", "arm64")), "miniooni"),
    Program("measurement_kit", 0.10, date(2016, 1, 1), 0, _BOARD, "libmeasurement_kit"),
    Program("ooniprobe", 0.03, date(2012, 1, 1), 1, _BOARD, ""),
)
_LAST_OF_OLD = date(2020, 12, 31)
_OLD = ("measurement_kit", "ooniprobe")


@dataclass(frozen=True, slots=True)
class Release:
    """One version of one program from a day on; `columns` is platform to software_version as COPY takes them."""

    program: int
    since: date
    columns: tuple[str, ...]


def releases(seed: int, until: date) -> list[Release]:
    """Draw the releases of all programs, about one every five weeks each, in order of time."""
    draw = random.Random(f"releases {seed}")
    found = []
    for number, program in enumerate(PROGRAMS):
        day, major, minor, patch = program.first, program.major, 0, 0
        last = _LAST_OF_OLD if program.name in _OLD else until
        while day <= last:
            version = f"{major}.{minor}.{patch}" + draw.choice(("", "", "", "", "", "-beta", "-alpha.1"))
            engine = f"3.{minor + 5}.{patch}" if program.engine else ""
            columns = tuple(
                f"{platform}\t{architecture}\t{program.engine}\t{engine}\t{program.name}\t{version}"
                for platform, architecture in program.platforms
            )
            found.append(Release(number, day, columns))
            day += timedelta(days=draw.randint(12, 60))
            step = draw.random()
            major, minor, patch = (
                (major + 1, 0, 0) if step < 0.02 else (major, minor + 1, 0) if step < 0.5 else (major, minor, patch + 1)
            )
    return sorted(found, key=lambda release: (release.since, release.program))


def in_use(all_releases: list[Release], day: date) -> tuple[list[str], list[float]]:
    """Return what people run on `day`: the columns, and the part of the reports of each."""
    columns: list[str] = []
    weights: list[float] = []
    for number, program in enumerate(PROGRAMS):
        known = [release for release in all_releases if release.program == number and release.since <= day]
        for age, release in enumerate(reversed(known)):
            weight = program.share * max(0.45 * 0.55**age, 0.0008)
            if program.name in _OLD and day > _LAST_OF_OLD:
                weight *= 0.02
            for column in release.columns:
                columns.append(column)
                weights.append(weight / len(release.columns))
    total = sum(weights)
    return columns, [weight / total for weight in weights]

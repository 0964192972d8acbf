"""What can be known about the packages without building them: versions, units, scripts, configuration, locks."""

import itertools
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import msgspec
import pytest
from debbuild import deb, spec, version
from debbuild.venv import copy_source

from analysis.config import AnalysisSettings
from api.config import ApiSettings
from core.config import load_settings
from fastpath.config import FastpathSettings
from uploader.config import UploaderSettings

ROOT = Path(__file__).parents[2]
PACKAGES = [spec.load(name) for name in spec.NAMES]
SERVICES = [path for package in PACKAGES for path in package.units if path.suffix == ".service"]
TIMERS = [path for package in PACKAGES for path in package.units if path.suffix == ".timer"]
EXPOSURE_LIMIT = 20  # in tenths

SETTINGS = {
    "api.toml": ApiSettings,
    "uploader.toml": UploaderSettings,
    "fastpath.toml": FastpathSettings,
    "analysis.toml": AnalysisSettings,
}


def by_name(path: Path) -> str:
    return path.name


def package_name(package: spec.Package) -> str:
    return package.name


def older(first: str, second: str) -> bool:
    return subprocess.run(["dpkg", "--compare-versions", first, "lt", second], check=False).returncode == 0


needs_dpkg = pytest.mark.skipif(shutil.which("dpkg") is None, reason="dpkg is not on this machine")
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine"
)


@needs_dpkg
def test_versions_rise_by_semver_then_pull_request_then_build():
    builds = [
        version.full_version(semver, {"PR": pr, "BUILD": build})
        for semver, pr, build in (
            ("0.5", "300", "999"),
            ("0.6", "", "9"),
            ("0.6", "9", "10"),
            ("0.6", "194", "147"),
            ("0.6", "194", "1000"),
            ("0.6", "1000", "1"),
            ("0.10.0", "", ""),
        )
    ]
    assert builds[3] == "0.6~pr194-147"
    for first, second in itertools.pairwise(builds):
        assert older(first, second), f"{first} is not older than {second}"
    assert older(builds[5], "0.6"), "a release must be newer than all its builds"
    assert version.full_version("0.6", {"PR": "1", "BUILD": "2"}, release="13") == "0.6~pr1-2+deb13"


@pytest.mark.parametrize("environ", [{"PR": "12a"}, {"BUILD": "-1"}, {"PR": "1~"}, {"BUILD": "9" * 10}])
def test_a_version_that_is_none_is_refused_by_the_name_of_the_variable(environ):
    with pytest.raises(version.VersionError, match=next(iter(environ))):
        version.full_version("0.6", environ)


@pytest.mark.parametrize("package", PACKAGES, ids=package_name)
def test_changelog_names_the_package_and_gets_an_entry_for_the_build(package, tmp_path):
    changelog = version.read_changelog(package.source / "changelog")
    assert changelog.name == package.name
    text = version.build_changelog(changelog, "0.9~pr3-4", "abc", 0)
    again = tmp_path / "changelog"
    again.write_text(text.replace("0.9~pr3-4", "0.9"))
    assert version.read_changelog(again).semver == "0.9"
    assert "commit abc" in text
    assert text.endswith(changelog.text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fastpath (0.6~pr1) bookworm; urgency=medium\n\n -- A <a@b>  Tue, 24 Nov 2026 12:00:00 +0000\n",
        "fastpath (0.6) bookworm; urgency=medium\n\n -- A <a@b>  yesterday\n",
        "fastpath (0.6) bookworm; urgency=medium\n",
    ],
)
def test_a_malformed_changelog_says_how_to_write_it(tmp_path, text):
    path = tmp_path / "changelog"
    path.write_text(text)
    with pytest.raises(version.VersionError, match="like"):
        version.read_changelog(path)


def test_source_date_is_the_commits_else_the_changelogs_and_never_in_the_future():
    changelog = version.Changelog("fastpath", "1.0", "A <a@b>", 1000, "")
    assert version.source_date({"SOURCE_DATE_EPOCH": "2000"}, changelog) == 2000
    assert version.source_date({}, changelog) == 1000
    assert version.source_date({"SOURCE_DATE_EPOCH": "99999999999"}, changelog) < 99999999999
    with pytest.raises(version.VersionError, match="SOURCE_DATE_EPOCH"):
        version.source_date({"SOURCE_DATE_EPOCH": "now"}, changelog)


def test_no_path_of_one_package_is_in_another():
    commands = [name for package in PACKAGES for name in package.commands]
    units = [path.name for package in PACKAGES for path in package.units]
    files = [path.name for package in PACKAGES for path in package.conffiles]
    for names in (commands, units, files):
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("package", PACKAGES, ids=package_name)
def test_every_command_is_one_of_an_app_in_the_package(package):
    scripts = {}
    for app in package.apps:
        scripts |= tomllib.loads((ROOT / "apps" / app / "pyproject.toml").read_text())["project"].get("scripts", {})
    assert package.commands.items() <= scripts.items()


@pytest.mark.parametrize("package", PACKAGES, ids=package_name)
def test_lock_has_hashes_and_the_versions_of_the_common_lock(package):
    def pins(path: Path) -> set[str]:
        return set(re.findall(r"^[a-z0-9.-]+==[^ ;\\]+", path.read_text(), re.MULTILINE))

    lock = package.source / "requirements.lock"
    assert pins(lock)
    assert pins(lock) <= pins(ROOT / "requirements.lock"), "run `make lock`: the locks are of different dates"
    assert lock.read_text().count("--hash=sha256:") >= len(pins(lock))
    wanted = set()
    for app in package.apps:
        for line in tomllib.loads((ROOT / "apps" / app / "pyproject.toml").read_text())["project"]["dependencies"]:
            wanted.add(re.split(r"[^A-Za-z0-9._-]", line)[0].lower().replace("_", "-"))
    locked = {pin.partition("==")[0] for pin in pins(lock)}
    assert {name for name in wanted if not name.startswith("backend-")} <= locked, "run `make lock`"


@needs_systemd
@pytest.mark.parametrize("template", SERVICES, ids=by_name)
def test_exposure_of_every_unit_is_low(template, tmp_path):
    unit = tmp_path / template.name
    unit.write_text(spec.render_unit(template))
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_LIMIT}", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Overall exposure level" in done.stdout, done.stderr
    assert done.returncode == 0, done.stdout


@needs_systemd
@pytest.mark.parametrize("template", SERVICES + TIMERS, ids=by_name)
def test_systemd_understands_every_line_of_every_unit(template, tmp_path):
    for path in SERVICES + TIMERS:  # a timer is verified together with its service
        text = spec.render_unit(path)
        (tmp_path / path.name).write_text(re.sub(r"^(ExecStart=)\S+", r"\1/bin/true", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(tmp_path / template.name)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line or template.name in line]
    assert not complaints


@pytest.mark.parametrize("template", SERVICES, ids=by_name)
def test_every_service_is_limited_and_logs_where_the_documentation_says(template):
    text = spec.render_unit(template)
    for directive in ("MemoryMax", "TasksMax", "LimitNOFILE", "User", "UMask"):
        assert re.search(rf"^{directive}=\S+", text, re.MULTILINE), f"{directive} is missing"
    assert "User=root" not in text
    identifiers = {
        "ooni-api.service": "gunicorn3",
        "ooni-update-counters.service": "analysis",
        "ooni-ensure-partitions.service": "analysis",
    }
    assert re.findall(r"^SyslogIdentifier=(.*)", text, re.MULTILINE) == [
        identifiers[template.name] for _ in range(template.name in identifiers)
    ]
    if "Type=oneshot" in text:
        assert "Restart=" not in text
    else:
        assert "\nRestart=always\n" in text


@pytest.mark.parametrize("template", TIMERS, ids=by_name)
def test_a_timer_starts_its_service_and_starting_it_does_not(template):
    text = template.read_text()
    assert template.with_suffix(".service").exists()
    assert "Persistent=yes" in text
    assert "Wants=" not in text
    assert "Requires=" not in text


def test_a_service_without_the_common_sandbox_is_refused(tmp_path):
    unit = tmp_path / "x.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    with pytest.raises(spec.SpecError, match="@sandbox@"):
        spec.render_unit(unit)


@pytest.mark.parametrize("package", PACKAGES, ids=package_name)
@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_complete_and_clean(package, name, tmp_path):
    text = spec.render_script(package, name)
    assert "@" not in text, "a value was not filled in"
    assert text.startswith("#!/bin/sh\n")
    path = tmp_path / name
    path.write_text(text)
    subprocess.run(["sh", "-n", path], check=True)
    template = (ROOT / "packaging/scripts/head.sh").read_text() + (ROOT / f"packaging/scripts/{name}.sh").read_text()
    path.write_text(template)
    shellcheck = ROOT / ".venv/bin/shellcheck"
    done = subprocess.run([shellcheck, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("package", PACKAGES, ids=package_name)
def test_restart_policy_is_the_same_for_all(package):
    """Nothing is stopped before the new files are there; afterwards everything that is started at install restarts."""
    assert "upgrade)" not in spec.render_script(package, "prerm")
    assert "action=restart" in spec.render_script(package, "postinst")
    names = {path.name for path in package.units}
    assert set(package.started) <= names
    for name in names - set(package.started):
        assert f"{name.removesuffix('.service')}.timer" in package.started


@pytest.mark.parametrize("path", [path for package in PACKAGES for path in package.conffiles], ids=by_name)
def test_installed_configuration_is_valid_and_names_the_shared_spool(path):
    settings = load_settings(SETTINGS[path.name], app=path.stem, path=path, environ={})
    values = msgspec.structs.asdict(settings)
    if "spool_directory" in values:
        assert values["spool_directory"] == spec.SPOOL


def test_api_and_uploader_agree_on_collector_and_object_store():
    directory = ROOT / "packaging/ooni-api/etc"
    api = load_settings(ApiSettings, app="api", path=directory / "api.toml", environ={})
    uploader = load_settings(UploaderSettings, app="uploader", path=directory / "uploader.toml", environ={})
    assert uploader.problem() is None
    assert api.collector_id == uploader.collector_id
    assert api.store_url == uploader.store_url


@pytest.mark.parametrize("package", PACKAGES, ids=package_name)
def test_units_may_write_only_into_directories_that_the_postinst_makes(package):
    made = {package.home, *package.directories}
    if package.spool:
        made |= {spec.SPOOL, str(Path(spec.SPOOL).parent)}
    for template in package.units:
        for line in re.findall(r"^ReadWritePaths=(.*)", template.read_text(), re.MULTILINE):
            assert set(line.split()) <= made


def test_what_tools_leave_among_the_modules_is_not_packed(tmp_path):
    module = tmp_path / "app/src/module"
    caches = [
        f"{cache}/deep" for cache in (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "__pycache__")
    ]
    for directory in (*caches, "data", "../../tests"):
        (module / directory).mkdir(parents=True)
        (module / directory / "file.json").write_text("{}")
    for name in ("__init__.py", "module.cpython-311.pyc", ".draft.swp", "py.typed"):
        (module / name).write_text("")
    (tmp_path / "app/pyproject.toml").write_text("")
    copy_source(tmp_path / "app", tmp_path / "copy")
    copied = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*") if path.is_file()}
    assert copied == {
        "pyproject.toml",
        *(f"src/module/{name}" for name in ("__init__.py", "data/file.json", "py.typed")),
    }


@pytest.mark.parametrize("package", PACKAGES, ids=package_name)
def test_licences_of_data_stand_beside_our_own(package, tmp_path):
    deb.stage_files(package, tmp_path)
    text = (tmp_path / "usr/share/doc" / package.name / "copyright").read_text()
    assert (ROOT / "LICENSE").read_text().strip() in text
    notice = (ROOT / "apps/api/src/api/LICENSE-unicode.txt").read_text().strip()
    assert (notice in text) == ("api" in package.apps)


def test_program_that_the_api_calls_comes_with_its_package() -> None:
    source = (ROOT / "apps/api/src/api/git_command.py").read_text()
    called = re.findall(r'^_GIT = "([a-z]+)"$', source, re.MULTILINE)
    assert list(spec.load("ooni-api").needs) == called == ["git"]
    assert [package.needs for package in PACKAGES if package.name != "ooni-api"] == [()] * (len(PACKAGES) - 1)

"""The spool works where the units let it: under the filter that RestrictSUIDSGID=yes installs."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

# chmod, fchmod, fchmodat, mkdir, mkdirat, mknod, mknodat, open, creat, openat: position of the mode, in x86-64 numbers.
# As the service manager does it: EPERM when the mode asks for set-user or set-group.
_PROGRAM = r"""
import ctypes, os, struct, sys
from pathlib import Path

MODE_AT = {90: 1, 91: 1, 268: 2, 83: 1, 258: 2, 133: 1, 259: 2, 2: 2, 85: 1, 257: 3}

def step(code, jt, jf, k):
    return struct.pack("<HBBI", code, jt, jf, k)

LOAD, JUMP_EQUAL, JUMP_ANY, RETURN = 0x20, 0x15, 0x45, 0x06
ALLOW, EPERM = 0x7FFF0000, 0x00050001
program = step(LOAD, 0, 0, 0)
for number, argument in MODE_AT.items():
    program += step(JUMP_EQUAL, 0, 4, number)
    program += step(LOAD, 0, 0, 16 + 8 * argument)
    program += step(JUMP_ANY, 0, 1, 0o6000)
    program += step(RETURN, 0, 0, EPERM)
    program += step(RETURN, 0, 0, ALLOW)
program += step(RETURN, 0, 0, ALLOW)
code = ctypes.create_string_buffer(program)
filter_ = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges
assert libc.prctl(22, 2, filter_, 0, 0) == 0, os.strerror(ctypes.get_errno())

root = Path(sys.argv[1])
try:
    os.chmod(root, 0o2770)
except PermissionError:
    print("filtered")
os.umask(0o007)
from core.spool import Spool
spool = Spool(root, min_free_bytes=0)
uid = "20240101000102.123456_IT_ndt_0123456789abcdef"
spool.put(uid, b"{}", "r")
spool.mark_scored([uid])
spool.quarantine(uid, "why")
spool.release(uid)
print(spool.read(uid).body.decode())
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter is written in the numbers of x86-64")
def test_directories_are_set_gid_without_asking_for_it(tmp_path: Path) -> None:
    """As the package makes the root: set-gid, and owned by the group that shares the spool."""
    root = tmp_path / "spool"
    root.mkdir()
    group = os.getgid()
    if os.geteuid() == 0:
        group = 65534
        os.chown(root, -1, group)
    root.chmod(0o2770)
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(root)], check=False, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("filtered\n{}\n", "")
    directories = [path for path in root.rglob("*") if path.is_dir()]
    assert len(directories) >= 5
    for directory in directories:
        status = directory.stat()
        assert (status.st_mode & 0o7777, status.st_gid) == (0o2770, group), directory

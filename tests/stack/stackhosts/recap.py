"""What ansible-playbook says at its end."""

import re
from dataclasses import dataclass

_LINE = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_CHANGED = re.compile(r"^changed: \[(\S+)\]")
_TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(.*)\] \*+")


@dataclass(frozen=True)
class Recap:
    """Counts of one run, by host."""

    ok: dict[str, int]
    changed: dict[str, int]
    changed_tasks: list[str]


def read_recap(output: str) -> Recap:
    """Find the counts in the output of ansible-playbook.

    Raises:
        ValueError: there are none, so nothing was played.
    """
    plain = _COLOUR.sub("", output)
    found = _LINE.findall(plain)
    if not found:
        raise ValueError("the output has no PLAY RECAP, so nothing was played")
    return Recap(
        ok={host: int(ok) for host, ok, *_ in found},
        changed={host: int(changed) for host, _, changed, *_ in found},
        changed_tasks=_changed_tasks(plain),
    )


def _changed_tasks(plain: str) -> list[str]:
    task, found = "", []
    for line in plain.splitlines():
        if match := _TASK.match(line):
            task = match[1]
        elif match := _CHANGED.match(line):
            found.append(f"{match[1]}: {task}")
    return found

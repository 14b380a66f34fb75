"""What /proc tells of a process."""

from pathlib import Path


def state_of(pid: int) -> str:
    """The state letter of a process (R, S, D, T, Z, ...); X when there is none."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2]
    except OSError:
        return "X"
    return after_name.split()[0].decode()

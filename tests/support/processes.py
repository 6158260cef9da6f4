"""Starting and ending the servers that tests use."""

import os
import socket
import subprocess
from pathlib import Path

END_WITHIN_S = 60.0
"""A server that has not ended by then is killed. Docker's may wait for containers that were given
half a minute to stop."""


WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def free_port() -> int:
    """A TCP port that nobody listened on a moment ago, and that the other processes of a parallel
    run are not given."""
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port: int = listener.getsockname()[1]
        # Linux hands out the ports of one parity here, and those of the other to clients.
        if port // 2 % WORKERS == WORKER % WORKERS:
            return port


def start_process(command: list[str], *, log: Path) -> subprocess.Popen[bytes]:
    """A process that outlives a Ctrl-C in the terminal, so that its owner can end it in order."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end_process(process: subprocess.Popen[bytes]) -> None:
    """Terminates, waits, and kills what does not listen."""
    process.terminate()
    try:
        process.wait(END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def tail(log: Path, *, lines: int = 20) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])

"""Programs with a time limit each, side by side. What hangs on a device heeds no SIGTERM, and perhaps no SIGKILL: it is left behind."""
from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import subprocess
import threading
import time


@dataclasses.dataclass(frozen=True)
class Command:
    name: str                    # of its log, and in what is printed
    arguments: list
    limit: float = float("inf")  # seconds, beside what its step has left
    environment: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Done:
    command: Command
    code: int | None  # None: ended at its limit
    seconds: float
    text: str         # what it printed

    @property
    def name(self):
        return self.command.name


def end(process):
    """Ends a process and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        pass


def start(command, environment, log):
    return subprocess.Popen(command.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                            env={**environment, **command.environment})


def run(command, limit, environment, folder):
    """Runs one; its output is FOLDER/NAME.log, also while it runs."""
    path = pathlib.Path(folder, command.name.replace(" ", "_").replace("/", "_") + ".log")
    begin = time.monotonic()
    code = None
    with path.open("wb") as log:
        try:
            process = start(command, environment, log)
        except OSError as error:
            path.write_text(f"{error}\n")
            return Done(command, 127, 0.0, f"{error}\n")
        try:
            code = process.wait(timeout=max(0.05, min(limit, command.limit)))
        except subprocess.TimeoutExpired:
            pass
        end(process)  # also what it left behind
    return Done(command, code, time.monotonic() - begin, path.read_text(errors="replace"))


def run_chains(chains, limit, environment, folder, report):
    """Each chain's commands one after another, the chains side by side. report(Done) after each, from any thread."""
    deadline = time.monotonic() + limit
    done = [[] for _ in chains]

    def go(chain, results):
        for command in chain:
            left = deadline - time.monotonic()
            results.append(run(command, left, environment, folder) if left > 0 else Done(command, None, 0.0, ""))
            report(results[-1])

    threads = [threading.Thread(target=go, args=pair) for pair in zip(chains, done)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [result for results in done for result in results]

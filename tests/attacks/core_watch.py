#!/usr/bin/env python3
"""How often a core of this machine was not there. A thread of real-time priority, bound to the core, that looks at the clock 50 times a
second wakes late only where a hypervisor took the core or the kernel held it and could not be preempted: what streams wait beside that
is the server's. It sees each such time in as many of 20 as that lasted milliseconds. Who looks more often changes what it stands beside: each
time it wakes the scheduler chooses anew who has the core, and whoever had it for long has it no longer.

    python3 tests/attacks/core_watch.py CORE    until SIGTERM; then the waits over 5 ms, in ms, as JSON
"""
import gc
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

PERIOD, LATE = 0.02, 0.005


def watch(core):
    done = []
    signal.signal(signal.SIGTERM, lambda *_: done.append(True))
    os.sched_setaffinity(0, {core})
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    gc.disable()
    print("watching", flush=True)
    late, due = [], time.monotonic()
    while not done:
        due += PERIOD
        time.sleep(max(0, due - time.monotonic()))
        now = time.monotonic()
        if now - due > LATE:
            late.append(1e3 * (now - due))
        due = now if now > due + PERIOD else due
    print(json.dumps(late))


def stolen():
    """Seconds of all cores together that the hypervisor says it took."""
    return int(pathlib.Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")


class CoreWatch:
    """A watch of each core; a process each, as one interpreter's threads would wait for one another."""

    def __enter__(self):
        self.watches = [subprocess.Popen([sys.executable, "-I", __file__, str(core)], text=True, stdout=subprocess.PIPE,
                                         stderr=subprocess.DEVNULL) for core in os.sched_getaffinity(0)]
        self.allowed = all([w.stdout.readline() for w in self.watches])
        self.stolen = stolen()
        return self

    def __exit__(self, *_):
        self.stolen = stolen() - self.stolen
        for w in self.watches:
            w.terminate()
        self.late = [ms for w in self.watches for ms in json.loads(w.communicate()[0] or "[]")]

    def __str__(self):
        if not self.allowed:
            return "whether cores were there is not known: real-time priority is not allowed here"
        over = ", ".join(f"{sum(ms > limit for ms in self.late)} times for more than {limit} ms" for limit in (5, 10, 20))
        return f"a core was seen not to be there {over}, at most {max(self.late, default=0):.0f} ms; {self.stolen:.1f} s stolen"


if __name__ == "__main__":
    watch(int(sys.argv[1]))

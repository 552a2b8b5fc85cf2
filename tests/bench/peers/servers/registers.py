"""Which vector registers a running program's threads hold, by the processor's own account (XSTATE_BV of their saved state, Intel's
Software Developer's Manual, volume 1, 13.4): what it computes with, whatever it says of itself. A thread is stopped for some 50 µs
each time that it is looked at. Linux on x86-64; elsewhere nothing is seen."""
import collections
import ctypes
import os
import pathlib
import platform
import threading

SEIZE, INTERRUPT, GETREGSET, DETACH = 0x4206, 0x4207, 0x4204, 17
NT_X86_XSTATE = 0x202
WALL = 0x40000000
XSTATE_BV = 512  # where it stands in the saved state
KINDS = (("AMX", 1 << 18), ("AVX-512", 1 << 6 | 1 << 7), ("AVX", 1 << 2))  # tile data; upper halves and registers 16 to 31; upper halves


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("size", ctypes.c_size_t)]


libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def state_of(thread):
    """XSTATE_BV; 0 where it cannot be had."""
    if libc.ptrace(SEIZE, thread, None, None) != 0:
        return 0
    try:
        if libc.ptrace(INTERRUPT, thread, None, None) != 0:
            return 0
        os.waitpid(thread, WALL)
        room = ctypes.create_string_buffer(1 << 14)
        vector = Vector(ctypes.addressof(room), len(room))
        if libc.ptrace(GETREGSET, thread, NT_X86_XSTATE, ctypes.addressof(vector)) != 0:
            return 0
        return int.from_bytes(room.raw[XSTATE_BV:XSTATE_BV + 8], "little")
    finally:
        libc.ptrace(DETACH, thread, None, None)


def shares(states):
    """{registers: the share of the states whose widest they are}, the widest first."""
    counts = collections.Counter(next((name for name, bits in KINDS if state & bits), "") for state in states)
    return {name: counts[name] / len(states) for name, _ in KINDS if counts[name]}


def running_threads(pids):
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").glob("*"):
            try:
                if (task / "stat").read_text().rsplit(")", 1)[1].split()[0] == "R":
                    yield int(task.name)
            except OSError:  # it has ended
                pass


class Watch:
    """Looks at the running threads of pids() some times a second while it is entered. ptrace belongs to one thread, this one's own."""

    def __init__(self, pids, interval=0.1):
        self.pids, self.interval, self.states, self.ended = pids, interval, [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while platform.machine() == "x86_64" and not self.ended.wait(self.interval):
            try:
                self.states += [state_of(thread) for thread in running_threads(self.pids())]
            except OSError:  # a process ended while it was looked at
                pass

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        self.shares = shares(self.states)

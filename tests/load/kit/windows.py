"""What a packet costs while the host takes nothing away: CPU in windows of 0.2 s.

On a shared machine a run of ten seconds is hardly ever left alone, and when the host takes the
processor away packets pile up and are cheaper in heaps. So what a process and the kernel's UDP did is
looked at five times a second, and only windows count in which next to nothing was stolen.
"""

import os
import statistics
import threading
import time

from . import machine

SECONDS = 0.2
# Stolen in a window, and in the one before it: clock ticks of 10 ms on the gateway's cpu and on the
# generator's.
GATEWAY_TICKS, GENERATOR_TICKS = 1, 3
# Of the packets a window should have: below it calls are being set up or torn down.
FULL = 0.9
# Packets a second of one call, both directions together.
PACKETS_OF_A_CALL = 100
# Fewer windows than this are no figure.
ENOUGH = 20


class Windows:
    """Looks at process `pid`, which relays `calls` calls, until it is left; see [`costs`]."""

    def __init__(self, pid, calls):
        self._pid, self._calls = pid, calls
        self._looks, self._done = [], threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _watch(self):
        while True:
            self._looks.append(look(self._pid))
            if self._done.wait(SECONDS):
                break

    def costs(self):
        """CPU of each window that counts, % of a core for 100 calls: the time a packet took, times
        the packets of 100 calls."""
        return costs(self._looks, self._calls)


def look(pid):
    """(moment s, CPU s of the process, UDP datagrams received on the machine, stolen ticks of both cpus)"""
    return time.monotonic(), cpu_seconds(pid), datagrams(), stolen()


def costs(looks, calls):
    """See [`Windows.costs`]."""
    found, was_quiet = [], False
    for before, after in zip(looks, looks[1:]):
        seconds, cpu, packets = (after[at] - before[at] for at in range(3))
        taken = [b - a for a, b in zip(before[3], after[3])]
        quiet = taken[0] <= GATEWAY_TICKS and taken[1] <= GENERATOR_TICKS
        # Each relayed packet is received twice: here and at the other end.
        relayed = packets / 2
        if quiet and was_quiet and relayed >= FULL * PACKETS_OF_A_CALL * calls * seconds:
            found.append(100 * cpu / relayed * PACKETS_OF_A_CALL * 100)
        was_quiet = quiet
    return found


def middle(windows):
    """The median of enough windows, else None."""
    return statistics.median(windows) if len(windows) >= ENOUGH else None


def cpu_seconds(pid):
    """CPU time of a process, from what its threads ran to the nanosecond."""
    total = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as stat:
                total += int(stat.read().split()[0])
    except OSError:
        pass  # a thread that has ended, or all of them
    return total / 1e9


def datagrams():
    """UDP datagrams that the kernel has given to programs (RFC 1213, udpInDatagrams)."""
    with open("/proc/net/snmp", encoding="ascii") as text:
        names, values = [line.split() for line in text if line.startswith("Udp:")]
    return int(values[names.index("InDatagrams")])


def stolen():
    """Clock ticks the host gave to others, of the gateway's cpu and of the generator's."""
    ticks = {}
    with open("/proc/stat", encoding="ascii") as text:
        for line in text:
            name, *fields = line.split()
            ticks[name] = int(fields[7]) if len(fields) > 7 else 0
    return [ticks.get(f"cpu{cpu}", 0) for cpu in (machine.GATEWAY_CPU, machine.GENERATOR_CPU)]

"""The machine: what it is, what runs beside us, and what a process costs."""

import os
import platform
import subprocess
import time

GATEWAY_CPU, GENERATOR_CPU = 0, 1
# Of the time of a run, what the host may give to others before delays are no longer the program's.
DISTURBED_PERCENT = 3
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGESIZE") // 1024


def describe():
    """CPU, cores, memory, kernel and the time, as they go above every table."""
    model = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo")
                  if line.startswith("model name")), platform.machine())
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo")
                   if line.startswith("MemTotal")), 0)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 1024 / 1024, 1),
        "kernel": platform.release(),
        "load_before": load(),
    }


def load():
    """Load average of the last minute."""
    return os.getloadavg()[0]


def stolen():
    """Seconds, since the machine started, in which its host gave the gateway's cpu to others."""
    for line in _lines("/proc/stat"):
        name, *ticks = line.split()
        if name == f"cpu{GATEWAY_CPU}":
            return int(ticks[7]) / TICKS
    return 0.0


def nice():
    """The priority that both sides of a run get, as text; none when empty. The rig reads the same."""
    return os.environ.get("RIG_NICE", "")


def pinned(cpu, *command):
    """The command on one cpu, with the priority that was asked for."""
    before = ["nice", "-n", nice()] if nice() else []
    return [*before, "taskset", "-c", str(cpu), *map(str, command)]


def own_session():
    """In the child: a session of its own, weighed like its processes where the kernel groups tasks
    by session (autogroup)."""
    os.setsid()
    if nice():
        try:
            with open("/proc/self/autogroup", "w", encoding="ascii") as group:
                group.write(nice())
        except OSError:
            pass  # no autogroup here


def run_quietly(command, **more):
    """A background process in a session of its own that reads and says nothing."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL,
             "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, preexec_fn=own_session, **(quiet | more))


def usage(pid):
    """(CPU seconds, resident KiB) of a process and all its descendants."""
    seen = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as stat:
                    fields = stat.read().rpartition(") ")[2].split()
            except OSError:
                continue  # ended meanwhile
            parent, cpu = int(fields[1]), sum(map(int, fields[11:15])) / TICKS
            seen[int(entry)] = (parent, cpu, int(fields[21]) * PAGE_KIB)
    family, cpu, resident = [pid], 0.0, 0
    for member in family:
        if member in seen:
            cpu += seen[member][1]
            resident += seen[member][2]
        family += [other for other, (parent, *_) in seen.items() if parent == member]
    return cpu, resident


def held(pid):
    """What a process holds: open files and threads."""
    return {"open files": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": len(os.listdir(f"/proc/{pid}/task"))}


def _lines(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as text:
            return text.read().splitlines()
    except OSError:
        return []

"""Signalling without media at a fixed rate: by the rig's generator, or by sipp."""

import csv
import glob
import os
import shutil
import statistics
import subprocess
import tempfile
import time

from . import machine, places

CALLER, CALLEE = "127.0.0.2", "127.0.0.3"
# A measured run must have offered and answered nearly what was asked for.
KEPT_UP = 0.98
FAILED_PERCENT = 0.1
# Calls a second that sipp makes and takes on one core without being what is measured.
SIPP_KEEPS_UP = 1_500


def passes(run):
    """Whether a run at a fixed rate counts: next to nothing failed, and the rate was reached."""
    return ("error" not in run and run["failed_pct"] < FAILED_PERCENT
            and run["answered_cps"] >= KEPT_UP * run["cps"])


def at_rate(kit, target, cps, seconds, tool=None):
    """Calls of a second at `cps` for `seconds`; the same keys whichever tool made them.

    The rig's generator dials each number once, so a run can ask for more numbers than there are.
    sipp, which needs one only, makes it then; where sipp is too slow the window is shorter.
    """
    warm = 3 if seconds > 5 else 1
    most = getattr(target, "numbers", 1_000_000) / cps - warm
    stolen, begun = machine.stolen(), time.monotonic()
    if tool == "sipp" or not kit.rig or (most < seconds and cps <= SIPP_KEEPS_UP):
        run = Sipp(target, cps, seconds).finish()
    elif most < 2:
        run = {"mode": "sig", "cps": cps, "error": f"{target.numbers} numbers are too few"}
    else:
        run = _rtpload(kit.rig, target, cps, (min(seconds, int(most)), warm))
    share = (machine.stolen() - stolen) / max(time.monotonic() - begun, 1)
    return run | {"stolen_pct": 100 * share}


def _rtpload(rig, target, cps, window):
    seconds, warm = window
    load = machine.load()
    run = rig.sigload(target, cps, seconds, warm)
    run |= {"tool": "rtpload", "load": load, "cps": cps}
    if "error" not in run:
        run["refused_pct"] = 100 * run["fail_codes"].get("503", 0) / max(run["begun"], 1)
    return run


class Sipp:
    """A caller and a callee of ours at a fixed rate; `beside` others, on ports of its own."""

    def __init__(self, target, cps, seconds, beside=False):
        self.target, self.cps, self.seconds = target, cps, seconds
        self.total = max(int(cps * seconds), 1)
        self.folder = tempfile.mkdtemp(prefix="trunkline-sipp-")
        names = getattr(target, "t", {})
        user = names.get("sipp_beside" if beside else "sipp_user", "c1[call_number]")
        from_port, to_port = (5072, 5082) if beside else (5070, 5080)
        self.callee = self._start("-sf", _scenario("callee"), "-i", CALLEE, "-p", to_port)
        time.sleep(0.5)
        self.load, self.begun = machine.load(), time.monotonic()
        self.cpu_before = machine.usage(target.pid())[0]
        self.caller = self._start(
            target.sip, "-sf", _scenario("caller"), "-i", CALLER, "-p", from_port, "-s", user,
            "-r", cps, "-m", self.total, "-l", int(cps * 15) + 100,
            "-trace_stat", "-stf", "stat.csv", "-fd", 1, "-trace_rtt", "-rtt_freq", 10,
            "-timeout", f"{int(seconds) + 30}s")

    def _start(self, *options):
        command = ["sipp", *options, "-nostdin", "-buff_size", "8388608"]
        return machine.run_quietly(machine.pinned(machine.GENERATOR_CPU, *command),
                                   cwd=self.folder)

    def finish(self):
        """Waits for the last call; the figures."""
        try:
            self.caller.wait(self.seconds + 45)
        except subprocess.TimeoutExpired:
            self.caller.kill()
            self.caller.wait()
        finally:
            cpu = machine.usage(self.target.pid())[0] - self.cpu_before
            wall = time.monotonic() - self.begun
            self.callee.terminate()
            self.callee.wait()
        run = {"tool": "sipp", "mode": "sig", "label": self.target.name, "cps": self.cps,
               "load": self.load, "secs": round(wall, 1)}
        try:
            run |= _read_statistics(self.folder, self.total, cpu)
        except (OSError, KeyError, IndexError, ValueError) as why:
            run["error"] = f"sipp left no statistics: {why!r}"
        shutil.rmtree(self.folder, ignore_errors=True)
        return run


def _read_statistics(folder, total, cpu):
    with open(os.path.join(folder, "stat.csv"), newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text, delimiter=";"))
    last = rows[-1]
    refused = int(last.get("GenericCounter1(C)") or 0)
    answered = int(last["SuccessfulCall(C)"]) - refused
    # The first and last second of the calling are only partly filled.
    busy = [row for row in rows if int(row["OutgoingCall(P)"]) > 0]
    rates = [float(row["CallRate(P)"]) for row in (busy[1:-1] or busy)]
    reached = statistics.mean(rates) if rates else 0.0
    delays = _delays(folder)
    return {
        "begun": total, "done": answered, "failed": total - answered,
        "failed_pct": 100 * (total - answered) / total,
        "refused_pct": 100 * refused / total,
        "answered_cps": reached * answered / total,
        "retrans": int(last["Retransmissions(C)"]),
        "pdd_us": {"p50": _quantile(delays, 0.5) * 1000, "p99": _quantile(delays, 0.99) * 1000},
        "sut_cpu_s_per_1000": cpu / max(answered, 1) * 1000,
    }


def _delays(folder):
    """Response times in milliseconds, sorted."""
    delays = []
    for path in glob.glob(os.path.join(folder, "*rtt.csv")):
        with open(path, newline="", encoding="utf-8") as text:
            for row in csv.reader(text, delimiter=";"):
                try:
                    delays.append(float(row[1]))
                except (ValueError, IndexError):
                    continue  # the heading
    return sorted(delays)


def _quantile(values, part):
    return values[min(len(values) - 1, int(part * len(values)))] if values else 0.0


def _scenario(name):
    return os.path.join(places.SCENARIOS, f"{name}.xml")

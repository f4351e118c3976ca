"""Many calls that come and go: what they cost, and that nothing of them stays."""

import threading

from . import calls, machine
from .report import progress

SHARE = 4
# Transactions outlive their call by 32 s: the rate times that is what memory grows by, at most.
SHORT_RATE = 200


def measure(kit, report):
    """Short agent calls at a steady rate, then the count of what is left over."""
    report.heading("Churn")
    if kit.rig:
        _agent_calls(kit, report)
    else:
        report.note(f"short agent calls and long calls: left out, {kit.why_no_rig}")
    if not kit.quick:
        _left_over(kit, report)


def _agent_calls(kit, report):
    seconds = 5 if kit.quick else 20
    progress(f"{kit.gateway.name}: 20 agent calls/s of a second")
    run = kit.keep(kit.rig.agent(kit.gateway, 0, seconds, churn=20))
    if "error" in run:
        report.note(f"agent calls of a second: {run['error']}")
        return
    report.table(
        ("agent calls of 1 s", "done", "failed %", "with audio back", "set-up p50 / p99 ms",
         "first audio back p50 / p99 ms", "CPU s / 1000 calls"),
        [("20/s", run["done"], f"{run['failed_pct']:.3f}", run["heard"],
          _both(run["pdd_us"]), _both(run["first_us"]), f"{run['sut_cpu_s_per_1000']:.2f}")])


def _left_over(kit, report):
    """The same load twice: the first makes the process as large as such a load makes it, the second
    must leave it as it found it."""
    short, long = 10_000, 200 if kit.rig else 0
    kit.restart(kit.gateway)
    idle = machine.usage(kit.gateway.pid())[1]
    _load(kit, short, long)
    quiet = kit.gateway.wait_until_quiet()
    before, resident_before = kit.gateway.holds(), machine.usage(kit.gateway.pid())[1]
    made = _load(kit, short, long)
    quiet = kit.gateway.wait_until_quiet() and quiet
    after, resident_after = kit.gateway.holds(), machine.usage(kit.gateway.pid())[1]
    report.table(("held", "before", f"after {short} short and {long} long calls"),
                 [(name, f"{before[name]:.0f}", f"{after[name]:.0f}") for name in before]
                 + [("memory KiB", resident_before, resident_after)])
    report.say(f"Memory of the idle process: {idle} KiB.")
    left = sum(abs(after[name] - before[name]) for name in before)
    report.check("kept after all calls: files, threads, ports, transactions, dialogs", left, "",
                 ("<=", 0, None), 0)
    report.check("memory after against before", 100 * (resident_after / resident_before - 1), "%",
                 ("<=", 5, None))
    failed = sum(run.get("failed_pct", 100) > calls.FAILED_PERCENT for run in made)
    if failed or not quiet:
        report.note(f"churn: {failed} of the loads failed calls; quiet afterwards: {quiet}")


def _load(kit, short, long):
    """Long calls with audio, and short ones while these last."""
    seconds = short / SHORT_RATE
    progress(f"{kit.gateway.name}: {short} calls of a second beside {long} long ones")
    made, lasting = [], None
    if long:
        def relay():
            run = kit.rig.media(kit.gateway, "relay", long, int(seconds) + 3, 50)
            run["failed_pct"] = 100 * run.get("failed", long) / long
            made.append(kit.keep(run))
        lasting = threading.Thread(target=relay)
        lasting.start()
    made.append(kit.keep(calls.Sipp(kit.gateway, SHORT_RATE, seconds, beside=True).finish()))
    if lasting:
        lasting.join()
    return made


def _both(histogram):
    return f"{histogram['p50'] / 1000:.1f} / {histogram['p99'] / 1000:.1f}"

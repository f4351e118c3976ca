"""Calls a second: what each costs, how many one core takes, and what happens beyond that."""

from . import calls, machine
from .report import median, progress, spread

SHARE = 6
SLOW_MS = 500
NEARLY_PERCENT = 2
FASTEST = 8000
COLUMNS = ("program", "tool", "calls/s", "runs", "failed % (worst)", "sent again",
           "post-dial delay p50 ms", "p99 ms", "CPU s / 1000 calls", "load before", "stolen %")


def measure(kit, report):
    """Fixed rate, highest rate, overload."""
    report.heading("Signalling: INVITE, 180, 200, ACK, one second, BYE; no media is sent")
    fixed = _fixed(kit)
    report.table(COLUMNS, [_row(runs) for runs in fixed])
    own = [run for runs in fixed for run in runs if run.get("label") == kit.gateway.name]
    report.check("CPU per 1000 calls at 40/s", median(_costs(own)), "s", ("<", 2.8, 0.6), 2)
    highest = {target.name: _highest(kit, target) for target in kit.targets()}
    report.say(f"Highest rate of one core with < {calls.FAILED_PERCENT} % failed, "
               f"p99 of the post-dial delay ≤ {SLOW_MS} ms:")
    report.table(COLUMNS, [_row(runs) for runs in highest.values() if runs])
    runs = highest[kit.gateway.name]
    if not runs:
        report.note("no rate passed: no highest rate, and nothing beyond it")
        report.check("highest rate of one core", None, "calls/s", (">=", 540, 2000), 0)
        return
    most = runs[0]["cps"]
    report.check("highest rate of one core", most, "calls/s", (">=", 540, 2000), 0)
    report.check("CPU per 1000 calls there", median(_costs(runs)), "s", ("<", 1.6, 0.6), 2)
    for target in kit.targets():
        if highest[target.name]:
            _beyond(kit, report, target, highest[target.name][0]["cps"])


def _fixed(kit):
    groups, seconds = {}, 5 if kit.quick else 20
    for _ in kit.rounds(3):
        for target in kit.targets():
            for tool in ("sipp", "rtpload") if kit.rig and not kit.quick else (None,):
                progress(f"{target.name}: 40 calls/s for {seconds} s")
                run = kit.keep(calls.at_rate(kit, target, 40, seconds, tool))
                if "error" not in run:
                    groups.setdefault((target.name, run["tool"]), []).append(run)
    return list(groups.values())


def _good(kit, target, cps, seconds):
    """The run, if it passes. One that nearly did is done again, and so is one from which the host
    took the cpu: that says nothing about the program."""
    for attempt in range(3):
        progress(f"{target.name}: {cps} calls/s for {seconds} s")
        run = kit.keep(calls.at_rate(kit, target, cps, seconds))
        if calls.passes(run) and run["pdd_us"]["p99"] <= SLOW_MS * 1000:
            return run
        # What an overload left over would spoil the next run.
        kit.restart(target)
        nearly = attempt == 0 and run.get("failed_pct", 100) < NEARLY_PERCENT
        disturbed = run["stolen_pct"] >= machine.DISTURBED_PERCENT
        if not (nearly or disturbed) or not kit.time_left():
            break
    return None


def _highest(kit, target):
    """The runs at the highest rate that passes over the whole window; none when none does."""
    probe, window, precision = (2, 5, 0.3) if kit.quick else (6, 20, 0.08)
    good, bad, rate = 0, None, 150
    while bad is None and rate <= FASTEST and kit.time_left():
        if _good(kit, target, rate, probe):
            good, rate = rate, int(rate * 1.6)
        else:
            bad = rate
    while bad and bad - good > max(precision * bad, 2) and kit.time_left():
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _good(kit, target, middle, probe) else (good, middle)
    # The search had short windows; the rate that counts holds over the long one.
    rate = good
    for attempt in range(6):
        if attempt and not kit.time_left():
            break
        run = _good(kit, target, rate, window) if rate else None
        if run:
            more = [_good(kit, target, rate, window) for _ in kit.rounds(3) if not kit.quick]
            return [run, *(each for each in more if each)]
        rate = int(rate * 0.94)
    return []


def _beyond(kit, report, target, most):
    rows = []
    for factor in (1.5, 3):
        kit.restart(target)
        progress(f"{target.name}: {factor} times its highest rate")
        run = kit.keep(calls.at_rate(kit, target, int(most * factor), 3 if kit.quick else 10))
        after = kit.keep(calls.at_rate(kit, target, int(most * 0.5), 2 if kit.quick else 4))
        if "error" in run:
            report.note(f"{factor} times the highest rate: {run['error']}")
            continue
        lost = max(run["failed_pct"] - run["refused_pct"], 0)
        rows.append((
            target.name, f"{factor} ×", f"{run['cps']:.0f}", f"{run['answered_cps']:.0f}",
            f"{100 * run['answered_cps'] / most:.0f}", f"{run['refused_pct']:.1f}", f"{lost:.1f}",
            f"{run['pdd_us']['p50'] / 1000:.1f} / {run['pdd_us']['p99'] / 1000:.0f}",
            f"{after['failed_pct']:.2f}" if "error" not in after else "–"))
        if target is kit.gateway:
            kept = 100 * run["answered_cps"] / most
            report.check(f"goodput at {factor} times that", kept, "% of it", (">=", None, 90), 0)
    report.table(("program", "offered", "calls/s", "answered/s", "% of the highest", "503 %",
                  "otherwise failed %", "post-dial delay p50 / p99 ms",
                  "failed % at half the rate, right after"), rows)
    kit.restart(target)


def _costs(runs):
    return [run["sut_cpu_s_per_1000"] for run in runs]


def _row(runs):
    first = runs[0]
    return (first["label"], first["tool"], f"{first['cps']:g}", len(runs),
            f"{max(run['failed_pct'] for run in runs):.3f}",
            spread([run["retrans"] for run in runs], 0),
            spread([run["pdd_us"]["p50"] / 1000 for run in runs], 2),
            spread([run["pdd_us"]["p99"] / 1000 for run in runs], 2),
            spread(_costs(runs), 2), spread([run["load"] for run in runs]),
            spread([run["stolen_pct"] for run in runs]))

"""Relayed calls: two SIP legs, packets both ways, beside the least a relay in user space costs."""

import os
import time

from . import calls, machine, windows
from .report import median, progress, spread

SHARE = 6
# The peer that SDES is compared with, and its cost of 100 calls, % of a core, where it does not run.
RTPENGINE, RTPENGINE_SDES = "kamailio-rtpengine", 18.7
# Calls a second while a run sets up.
RAMP = 50
# What a packet costs on a shared machine wanders by a third within a minute: we and the bare loop take turns,
# short ones, and the one that was last in a round is first in the next.
TURNS, TURN_SECONDS = 6, 5
COLUMNS = ("what", "calls", "runs", "loss % (worst)", "added latency p50 µs", "p99 µs", "p99.9 µs",
           "CPU % / 100 calls", "… in quiet windows", "KiB / call", "load before", "stolen %")


def measure(kit, report):
    """Plain at each size, with SDES, and with calls coming and going beside it."""
    report.heading("Relay: G.711 between two SIP legs, 100 packets/s a call")
    if not kit.rig:
        report.note(f"relay: left out, {kit.why_no_rig}")
        return
    rows = []
    for count in (100,) if kit.quick else (100, 500):
        rows += _size(kit, report, count)
    rows += _encrypted(kit, report)
    if not kit.quick:
        rows += _busy(kit, report)
    report.table(COLUMNS, rows)


def _media(kit, target, kind, count, seconds=10):
    """One run of the rig's generator."""
    progress(f"{target.name}: {count} calls, {kind}")
    seconds = 4 if kit.quick else seconds

    def run():
        if target is not kit.gateway:
            # Several processes each.
            return kit.rig.media(target, kind, count, seconds, RAMP) | {"windows": []}
        with windows.Windows(target.pid(), count) as watched:
            made = kit.rig.media(target, kind, count, seconds, RAMP)
        return made | {"windows": watched.costs()}

    return kit.undisturbed(run, getattr(target, "idle_kib", None))


def _floor(kit, count):
    progress(f"floor: {count} calls")
    return kit.undisturbed(lambda: _bare_loop(kit, count) | {"label": "floor", "work": "floor"})


def _bare_loop(kit, count):
    seconds = 4 if kit.quick else TURN_SECONDS
    program = os.path.join(kit.rig.HERE, "limits", "refrelay")
    relay = machine.run_quietly(machine.pinned(
        machine.GATEWAY_CPU, program, 30000, count, "epoll", seconds + 20))
    try:
        time.sleep(0.5)
        with windows.Windows(relay.pid, count) as watched:
            made = kit.rig.rtpload(None, [
                "--mode", "static", "--static", "127.0.0.1:30000", "--calls", str(count),
                "--time", str(seconds), "--warm", "2", "--pid", str(relay.pid)])
        return made | {"windows": watched.costs()}
    finally:
        relay.terminate()
        relay.wait()


def _size(kit, report, count):
    groups = {}
    # Memory is counted from a start: a process keeps what earlier calls made it grow.
    kit.restart(kit.gateway)
    for turn in kit.rounds(TURNS):
        for target in [*kit.targets(), None][::-1 if turn % 2 else 1]:
            made = _media(kit, target, "relay", count, TURN_SECONDS) if target else _floor(kit, count)
            groups.setdefault(target.name if target else "floor", []).append(made)
    own, floor = _sound(groups[kit.gateway.name]), _sound(groups["floor"])
    cost, least, where = _compared(own, floor)
    beside = f" (floor {least:.1f}{where})" if least else ""
    report.check(f"relay of {count}: CPU per 100 calls{beside}", cost, "%",
                 ("<=", least * 1.15 if least else None, None))
    report.check(f"relay of {count}: memory", own[0]["kib_per_call"] if own else None,
                 "KiB a call", ("<=", 128, 64), 0)
    return [_row(name, count, runs) for name, runs in groups.items()]


def _encrypted(kit, report):
    groups = {}
    kit.restart(kit.gateway)
    for _ in kit.rounds(3):
        for target in kit.targets():
            groups.setdefault(target.name, []).append(_media(kit, target, "srtp", 100))
    own, peer = _sound(groups[kit.gateway.name]), _sound(groups.get(RTPENGINE, []))
    # Beside the peer itself where it ran: machines differ.
    beside = median(_costs(peer)) or RTPENGINE_SDES
    where = "in this run" if peer else "on another machine"
    report.check(f"SDES on one leg, 100 calls: CPU per 100 (rtpengine {beside:.1f} {where})",
                 median(_costs(own)), "%", ("<=", 0.75 * beside, 0.65 * beside))
    return [_row(f"{name}, SDES on one leg", 100, runs) for name, runs in groups.items()]


def _busy(kit, report):
    count, runs = 500, []
    for _ in kit.rounds(2):
        # From before the first call until after the last packet that counts.
        beside = calls.Sipp(kit.gateway, 40, count / RAMP + 14, beside=True)
        try:
            runs.append(_media(kit, kit.gateway, "relay", count))
        finally:
            made = kit.keep(beside.finish())
        if made.get("failed_pct", 100) > calls.FAILED_PERCENT:
            report.note(f"of the 40 calls/s beside the relay {made.get('failed_pct')} % failed")
    worst = median([_latency(run, "p999") for run in _sound(runs)])
    report.check(f"relay of {count} with 40 calls/s set up: p99.9",
                 worst / 1000 if worst is not None else None, "ms", ("<=", 3, None), 2)
    return [_row(f"{kit.gateway.name}, 40 calls/s beside it", count, runs)]


def _sound(runs):
    return [run for run in runs if "lat_ab_us" in run and run["up"] == run["calls"]]


def _costs(runs):
    return [run["sut_cpu_pct_per_100"] for run in runs]


def _quiet(runs):
    """The median of the windows that count, and how many they are."""
    middle = windows.middle(_windows(runs))
    return "–" if middle is None else f"{middle:.2f} of {len(_windows(runs))}"


def _compared(own, floor):
    """What both cost, and where that is from: from quiet windows if both have enough of them."""
    ours, theirs = (windows.middle(_windows(runs)) for runs in (own, floor))
    if ours is None or theirs is None:
        return median(_costs(own)), median(_costs(floor)), ""
    return ours, theirs, f"; {len(_windows(own))} and {len(_windows(floor))} quiet windows"


def _windows(runs):
    return [cost for run in runs for cost in run["windows"]]


def _latency(run, which):
    """Of the slower direction, µs."""
    return max(run["lat_ab_us"][which], run["lat_ba_us"][which])


def _row(name, count, runs):
    sound = _sound(runs)
    if not sound:
        why = runs[0].get("error") or f"{runs[0].get('up')} of {count} calls came up"
        return (name, count, len(runs), why, *["–"] * 8)
    return (name, count, len(sound), f"{max(run['loss_pct'] for run in sound):.3f}",
            *(spread([_latency(run, which) for run in sound], 0)
              for which in ("p50", "p99", "p999")),
            spread(_costs(sound)), _quiet(sound),
            "" if name == "floor" else f"{sound[0]['kib_per_call']:.0f}",
            spread([run["load"] for run in sound]), spread([run["stolen_pct"] for run in sound]))

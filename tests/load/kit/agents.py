"""Calls to a voice agent over WebSocket that says back what it hears, in Twilio's dialect."""

import os

from .report import median, progress, spread

# Peers of the rig that answer agent calls; the others only take calls from SIP to SIP.
PEERS = ("asterisk-ws", "sgbridge-node", "siphon-ai", "siphon-rtp")
SHARE = 6
ROUND_TRIP_LIMIT_MS = 200
COLUMNS = ("what", "calls", "runs", "loss % (worst)", "round trip p50 ms", "p99 ms", "p99.9 ms",
           "gaps > 60 ms a call-minute", "CPU ms / call-second", "KiB / call", "load before",
           "stolen %")


def measure(kit, report):
    """Fixed sizes beside the floor, then the highest number of calls."""
    report.heading("Agent calls: RTP to WebSocket and back, JSON and base64, the agent echoes")
    if not kit.rig:
        report.note(f"agents: left out, {kit.why_no_rig}")
        return
    rows = []
    for count in (200,) if kit.quick else (50, 100, 200, 400):
        rows += _size(kit, report, count)
    report.table(COLUMNS, rows)
    if kit.quick:
        return
    most, is_found = _highest(kit)
    report.say(f"Highest number of calls with < 0.1 % lost and p99 of the round trip ≤ "
               f"{ROUND_TRIP_LIMIT_MS} ms: {most or 'none'}"
               f"{'' if is_found else '; the time was up before one more failed'}")
    report.check("agent calls on the core", most, "calls", (">=", 400, None), 0)


def _calls(kit, target, count):
    progress(f"{target.name}: {count} agent calls")
    seconds = 5 if kit.quick else 10
    return kit.undisturbed(lambda: kit.rig.agent(target, count, seconds, 40),
                           getattr(target, "idle_kib", None))


def _floor(kit, count):
    progress(f"floor: {count} agent calls")
    seconds = 5 if kit.quick else 10
    return kit.undisturbed(
        lambda: kit.rig.floor("json", "own", count, seconds) | {"label": "floor"})


def _size(kit, report, count):
    groups = {}
    kit.restart(kit.gateway)
    have_floor = os.access(kit.rig.WSFLOOR, os.X_OK)
    for _ in kit.rounds(2):
        for target in kit.targets(PEERS):
            groups.setdefault(target.name, []).append(_calls(kit, target, count))
        if have_floor:
            groups.setdefault("floor", []).append(_floor(kit, count))
    own, floor = _sound(groups[kit.gateway.name]), _sound(groups.get("floor", []))
    if count == 200:
        least = median(_costs(floor))
        beside = f" (floor {least:.2f})" if least else ""
        report.check(f"200 agent calls: CPU{beside}", median(_costs(own)), "ms/call-s",
                     ("<=", 2.3, least * 1.25 if least else None), 2)
        for which, must, goal in (("p50", 10, 3), ("p99", 40, 10)):
            report.check(f"200 agent calls: round trip {which}",
                         median(_round_trips(own, which)), "ms", ("<=", must, goal))
    return [_row(name, count, runs) for name, runs in groups.items()]


def _highest(kit):
    """Grows from the most that passed so far until a run fails, then halves the interval; one run a
    value. The highest number that passed, and whether more than that was seen to fail."""
    own = [run for run in kit.runs if run.get("work") == "agent" and run.get("label") == kit.gateway.name]
    good = max((run["calls"] for run in _sound(own) if kit.rig.passes(run)), default=0)
    bad, count = None, int(good * 1.6) or 150
    limit = min(kit.numbers, 1600)
    while bad is None and count <= limit and kit.time_left():
        if _passes(kit, count):
            good, count = count, int(count * 1.6)
        else:
            bad = count
    while bad and bad - good > max(0.08 * bad, 10) and kit.time_left():
        middle = (good + bad) // 2
        good, bad = (middle, bad) if _passes(kit, middle) else (good, middle)
    return good or None, bad is not None or count > limit


def _passes(kit, count):
    run = _calls(kit, kit.gateway, count)
    good = bool(_sound([run])) and kit.rig.passes(run)
    if not good:
        kit.restart(kit.gateway)
    return good


def _sound(runs):
    return [run for run in runs if "loss_pct" in run and run["up"] == run["calls"]]


def _costs(runs):
    return [run["sut_cpu_us_per_call_s"] / 1000 for run in runs]


def _round_trips(runs, which):
    return [run["rtt_us"][which] / 1000 for run in runs]


def _row(name, count, runs):
    sound = _sound(runs)
    if not sound:
        why = runs[0].get("error") or f"{runs[0].get('up')} of {count} calls came up"
        return (name, count, len(runs), why, *["–"] * 8)
    gaps = [run["gaps_60ms"] / run["up"] / run["secs"] * 60 for run in sound]
    return (name, count, len(sound), f"{max(run['loss_pct'] for run in sound):.3f}",
            spread(_round_trips(sound, "p50"), 2), spread(_round_trips(sound, "p99")),
            spread(_round_trips(sound, "p999")), spread(gaps, 2), spread(_costs(sound), 2),
            "" if name == "floor" else f"{sound[0]['kib_per_call']:.0f}",
            spread([run["load"] for run in sound]), spread([run["stolen_pct"] for run in sound]))

"""The command: what was asked for, in order, within its time."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time

from . import agents, churn, machine, places, relay, signalling
from .report import Report, progress
from .smoke import smoke
from .subject import Trunkline

PARTS = {"signalling": signalling, "relay": relay, "agents": agents, "churn": churn}
DEFAULT_MINUTES = {True: 2, False: 20}
# A generator that was late by more than this says nothing about the gateway.
HELD_UP_MS = 100
# Enough for three times the highest rate for a few seconds; as many take a minute or two to provision.
NUMBERS = {True: 12_000, False: 48_000}


class Kit:
    """What every part works with."""

    def __init__(self, options):
        self.quick, self.parts = options.quick, options.only or list(PARTS)
        self.repeats = options.repeats
        self.program = places.binary()
        needs_floor = "agents" in self.parts
        self.rig, self.why_no_rig = places.open_rig(needs_floor)
        self.numbers = options.numbers or NUMBERS[self.quick]
        self.gateway = Trunkline(self.program, self.numbers)
        self.peers, self.runs, self.deadline, self.part_ends = [], [], 0.0, 0.0

    def start(self, names, minutes):
        """Starts everything; time counts from when the gateway is there. What could not be started
        of the peers, as text."""
        progress(f"provisioning {self.numbers} numbers where the store is not there yet")
        self.gateway.start()
        self.deadline = time.monotonic() + minutes * 60
        missing = []
        for name in names:
            try:
                self.peers.append(self.rig.Target(name).start())
            except (SystemExit, OSError, AttributeError) as why:
                missing.append(f"peer {name}: {why if self.rig else self.why_no_rig}")
        return missing

    def stop(self):
        for target in (self.gateway, *self.peers):
            target.stop()

    def restart(self, target):
        target.stop()
        target.start()

    def targets(self, peers=None):
        """The gateway, then those peers that can do this kind of call."""
        fit = lambda name: name in peers if peers else name not in agents.PEERS
        return [self.gateway, *(peer for peer in self.peers if fit(peer.name))]

    def keep(self, run):
        """Notes a run for the JSON file."""
        self.runs.append(run)
        return run

    def begin(self, part):
        """Gives a part its share of the time that is left, so that none takes that of the last."""
        ahead = self.parts[self.parts.index(part):]
        share = PARTS[part].SHARE / sum(PARTS[name].SHARE for name in ahead)
        now = time.monotonic()
        self.part_ends = now + (self.deadline - now) * share

    def time_left(self):
        """Whether the part may begin something more."""
        return time.monotonic() < self.part_ends

    def undisturbed(self, run, idle=None):
        """Does a media run, once more where the machine disturbed it: when the generator is held up
        the packets of a second come at once, and loss and delay are those of the machine.

        `idle` is the memory before any call, KiB; without it the run's own start counts."""
        for _ in range(2):
            load, stolen, begun = machine.load(), machine.stolen(), time.monotonic()
            made = run() | {"load": load}
            share = (machine.stolen() - stolen) / (time.monotonic() - begun)
            made = self.keep(made | {"stolen_pct": 100 * share})
            if made.get("up"):
                before = made.get("sut_rss_kb_before", 0) if idle is None else idle
                made["kib_per_call"] = (made.get("sut_rss_kb", 0) - before) / made["up"]
            if (made.get("max_late_ms", 0) < HELD_UP_MS
                    and made["stolen_pct"] < machine.DISTURBED_PERCENT) or not self.time_left():
                break
            progress(f"disturbed: the generator was late by {made.get('max_late_ms', 0):.0f} ms, "
                     f"{made['stolen_pct']:.0f} % of the cpu were stolen")
        return made

    def rounds(self, most):
        """Repeats: as many as asked for or fit; the first in any case."""
        for done in range(1 if self.quick else self.repeats or most):
            if done == 0 or self.time_left():
                yield done


def parse(arguments):
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="tests/load/run", formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Drives the release binary on loopback and prints what calls cost.",
        epilog="""\
The gateway runs on cpu 0, generators on cpu 1. Everything stays on 127.0.0.0/8 and ends by itself.
Without the rig signalling is measured with sipp, and what needs media is left out and named.

environment:
  TRUNKLINE_BIN   the program (default: target/release/trunkline)
  TRUNKLINE_RIG   folder of the load rig (default: ../shared/rig beside the workspace)
  RIG_NICE        -20, as root: the run goes before other work of a shared machine

exit code: 0; 1 when a figure is not what it must be and --strict was given, or --smoke failed;
2 when something is missing""")
    parser.add_argument("--quick", action="store_true",
                        help="rough figures in about two minutes: short runs, once each, without "
                             "the highest number of agent calls and what is left over")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART",
                        help="signalling, relay, agents or churn; may be given more than once")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME",
                        help="a target of the rig that runs the same in turn, such as "
                             "kamailio-rtpengine; may be given more than once")
    parser.add_argument("--repeats", type=int, help="runs of each figure; the median counts")
    parser.add_argument("--numbers", type=int,
                        help="numbers of relayed calls: what bounds rate times window")
    parser.add_argument("--minutes", type=float, help="no further repeat begins after this time")
    parser.add_argument("--json", metavar="FILE", help="also write every run and check there")
    parser.add_argument("--strict", action="store_true", help="exit code 1 when a figure misses")
    parser.add_argument("--smoke", action="store_true",
                        help="20 calls with sipp and nothing measured, for a test run")
    return parser.parse_args(arguments)


def about(kit, options):
    """Machine, program and settings, as they stand above the figures."""
    built = time.strftime("%Y-%m-%d %H:%M", time.localtime(os.path.getmtime(kit.program)))
    version = subprocess.run([kit.program, "--version"], capture_output=True, text=True,
                             check=False).stdout.strip()
    return machine.describe() | {
        "program": f"{version}, built {built}", "commit": places.commit(),
        "run": "quick" if options.quick else "full", "parts": kit.parts, "peers": options.peer,
        "numbers": kit.numbers, "priority": machine.nice() or "as usual",
        "settings": "tests/load/target/trunkline.toml",
    }


def print_about(facts):
    print("# Trunkline under load\n")
    print(f"{facts['date']} · {facts['program']} · commit {facts['commit']} · {facts['run']} run")
    print(f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']} GiB, "
          f"Linux {facts['kernel']}, load before {facts['load_before']:.2f}")
    print(f"gateway on cpu 0, generators on cpu 1, priority {facts['priority']}, "
          f"{facts['numbers']} numbers, settings of {facts['settings']}", flush=True)


def measure(options):
    """All parts asked for; how many figures are not what they must be."""
    kit, report = Kit(options), Report()
    facts = about(kit, options)
    print_about(facts)
    begun = time.monotonic()
    try:
        for missing in kit.start(options.peer, options.minutes or DEFAULT_MINUTES[options.quick]):
            report.note(missing)
        for name in kit.parts:
            kit.begin(name)
            PARTS[name].measure(kit, report)
    finally:
        kit.stop()
        if options.json:
            with open(options.json, "w", encoding="utf-8") as out:
                json.dump({"about": facts, "checks": report.checks, "notes": report.notes,
                           "runs": kit.runs}, out, indent=1)
    report.verdicts()
    print(f"\ntook {(time.monotonic() - begun) / 60:.1f} min, load after {machine.load():.2f}")
    return report.failed()


def main():
    """Runs it; the exit code."""
    options = parse(sys.argv[1:])
    # SIGINT is ignored in a background job; either ends the run with everything stopped.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(130))
    try:
        for needed in ("sipp", "taskset"):
            if not shutil.which(needed):
                raise places.Missing(f"{needed} is not installed (Debian: sip-tester, util-linux)")
        if options.smoke:
            wrong = smoke(places.binary())
            print("\n".join(wrong) or "20 calls, all answered, nothing left over")
            return 1 if wrong else 0
        failed = measure(options)
    except places.Missing as why:
        print(f"tests/load/run: {why}", file=sys.stderr)
        return 2
    return 1 if failed and options.strict else 0

"""Twenty calls through the program, for a test run: does the kit work, and does the gateway?"""

import time

from . import calls
from .report import progress
from .subject import Trunkline

CALLS, RATE = 20, 10


def smoke(program):
    """What went wrong, as lines; none when all is well."""
    gateway = Trunkline(program, numbers=1)
    progress("starting the gateway")
    gateway.start()
    wrong = []
    try:
        progress(f"{CALLS} calls with sipp")
        run = calls.Sipp(gateway, RATE, CALLS / RATE).finish()
        if run.get("done") != CALLS:
            wrong.append(f"not every call was answered and ended: {run}")
        wrong += _left(gateway)
        listed = gateway.ask(f"/core/conversations?limit={2 * CALLS}")
        states = [conversation["status"] for conversation in listed]
        if states != ["completed"] * CALLS:
            wrong.append(f"conversations are not {CALLS} completed ones: {states}")
        if gateway.metric("gateway_bugs_total") or gateway.metric("gateway_media_faults_total"):
            wrong.append("the gateway counted faults of its own")
    finally:
        said = gateway.log()
        if not gateway.stop():
            wrong.append("the gateway did not stop in order")
    return wrong + ([f"the gateway said: {said[-2000:]}"] if wrong else [])


def _left(gateway):
    """What is held a few seconds after the last call; transactions are let be, they last 32 s."""
    names, held = ("calls", "media sessions", "media ports", "SIP dialogs"), {}
    for _ in range(10):
        held = gateway.holds()
        if not any(held[name] for name in names):
            return []
        time.sleep(0.5)
    return [f"held after the calls: {name} {held[name]:.0f}" for name in names if held[name]]

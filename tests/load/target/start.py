#!/usr/bin/env python3
"""Starts Trunkline with a store that is provisioned for load: start.py FOLDER

Everything is made through the REST API of a gateway that runs for that purpose alone: a trunk for the
callers of the load, the agents that answer them, and their numbers. Then this program turns into the
gateway that is measured (exec), so that its CPU time and memory are the gateway's own.

Thousands of numbers take a while, so the store can be kept: a later start with the same program and
the same number of numbers takes a copy.

environment:
  TRUNKLINE_BIN            the program
  TRUNKLINE_LOAD_NUMBERS   numbers of relayed calls (default 2000): one for each call of a run
  TRUNKLINE_LOAD_CACHE     folder that keeps the store; without it nothing is kept
"""
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

API = ("127.0.0.1", 5734)
CALLERS = ["127.0.0.2", "127.0.0.12", "127.0.0.13"]
CLIENTS = 8
# The API takes this many numbers in one publication.
AT_ONCE = 1000
AGENT_CALLS = 3000


def lines(relayed):
    """(prefix, how many numbers, runtime) of each kind of call."""
    sip = {"type": "sip", "transport": "SIP_TRANSPORT_UDP",
           "media_encryption": "SIP_MEDIA_ENCRYPT_DISABLE"}
    return [
        ("+1555", relayed, sip | {"uri": "sip:{called_number}@127.0.0.3:5080"}),
        ("+1557", 1, sip | {"uri": "sip:{called_number}@127.0.0.3:5082"}),
        ("+1558", min(AGENT_CALLS, relayed),
         {"type": "websocket", "dialect": "twilio", "url": "ws://127.0.0.1:9100/"}),
    ]


class Api:
    """One connection to the REST API."""

    def __init__(self, key):
        self.key, self.link = key, http.client.HTTPConnection(*API, timeout=60)

    def post(self, path, body):
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        self.link.request("POST", path, json.dumps(body), headers)
        reply = self.link.getresponse()
        text = reply.read()
        if reply.status >= 300:
            raise RuntimeError(f"POST {path}: {reply.status} {text[:300]!r}")
        return json.loads(text)


def register(key, trunk, numbers):
    """Puts numbers on the trunk, over a few connections at once."""
    def some(part):
        api = Api(key)
        for number in part:
            api.post("/core/phone-numbers", {"phone_number": number, "trunk_id": trunk})

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(some, [numbers[i::CLIENTS] for i in range(CLIENTS)]))


def provision(key, relayed):
    """Trunk, numbers and agents."""
    api = Api(key)
    inbound = {"allowed_addresses": CALLERS, "media_encryption": "SIP_MEDIA_ENCRYPT_ALLOW"}
    trunk = api.post("/core/trunks", {"name": "load", "inbound_config": inbound})["id"]
    for prefix, count, runtime in lines(relayed):
        numbers = [f"{prefix}{i:06d}" for i in range(count)]
        register(key, trunk, numbers)
        agent = api.post("/core/agents", {"name": prefix})["id"]
        api.post(f"/core/agents/{agent}/versions", {"config": {"runtime": runtime}})
        for first in range(0, count, AT_ONCE):
            part = {"phone_numbers": numbers[first:first + AT_ONCE], "direction": "inbound"}
            api.post(f"/core/agents/{agent}/versions/1/publish", part)


def environment(**more):
    """Ours without what concerns this program only, so that nobody's settings change the figures."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    return kept | more


def first_key(text):
    return next((word for word in text.split() if word.startswith("ak_")), None)


def make_store(command, data, relayed):
    """Runs a gateway on a new store for as long as provisioning takes.

    Its SIP port is another one, so that nobody takes it for the gateway to come.
    """
    said = os.path.join(os.path.dirname(data), "provisioning.log")
    with open(said, "wb") as log:
        changed = environment(TRUNKLINE_STORE__DATA_DIR=data, TRUNKLINE_SIP__UDP="127.0.0.1:0")
        gateway = subprocess.Popen(command, env=changed, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=log)
    try:
        end, key = time.monotonic() + 20, None
        while not key and gateway.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
            with open(said, encoding="utf-8", errors="replace") as log:
                key = first_key(log.read())
        if not key:
            with open(said, encoding="utf-8", errors="replace") as log:
                raise RuntimeError(f"the gateway did not start: {log.read()[-2000:]}")
        wait_for_api(end)
        provision(key, relayed)
        with open(os.path.join(data, "key"), "w", encoding="ascii") as out:
            out.write(key)
    finally:
        gateway.send_signal(signal.SIGTERM)
        try:
            gateway.wait(30)
        except subprocess.TimeoutExpired:
            gateway.kill()
            gateway.wait()


def wait_for_api(end):
    while True:
        try:
            link = http.client.HTTPConnection(*API, timeout=2)
            link.request("GET", "/core/openapi.json")
            link.getresponse().read()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def cached_store(command, relayed):
    """A provisioned store in the cache, made when it is not there."""
    program = os.stat(command[0])
    with open(__file__, "rb") as own:
        made_of = f"{relayed} {program.st_size} {program.st_mtime_ns} ".encode() + own.read()
    cache = os.environ["TRUNKLINE_LOAD_CACHE"]
    store = os.path.join(cache, "store-" + hashlib.sha256(made_of).hexdigest()[:16])
    if not os.path.exists(store):
        # Of other programs' stores only the newest two are kept: programs may be compared.
        old = sorted((os.path.join(cache, each) for each in os.listdir(cache)), key=os.path.getmtime)
        for each in old[:-2]:
            shutil.rmtree(each, ignore_errors=True)
        partial = os.path.join(cache, f"partial-{os.getpid()}", "data")
        os.makedirs(partial)
        try:
            make_store(command, partial, relayed)
            os.rename(partial, store)
        finally:
            shutil.rmtree(os.path.dirname(partial), ignore_errors=True)
    return store


def main():
    # Stopped in mid-provisioning it takes its gateway with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run = os.path.abspath(sys.argv[1])
    relayed = int(os.environ.get("TRUNKLINE_LOAD_NUMBERS", "2000"))
    program = os.path.abspath(os.environ["TRUNKLINE_BIN"])
    command = [program, "serve", "--settings", os.path.join(run, "trunkline.toml")]
    data = os.path.join(run, "data")
    if os.environ.get("TRUNKLINE_LOAD_CACHE"):
        os.makedirs(os.environ["TRUNKLINE_LOAD_CACHE"], exist_ok=True)
        shutil.copytree(cached_store(command, relayed), data)
    else:
        make_store(command, data, relayed)
    os.execve(program, command, environment())


if __name__ == "__main__":
    main()

"""The program under load: Trunkline in a scratch folder, started from `target/` as the rig would."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import tomllib
import urllib.request

from . import machine, places

OBSERVE = "http://127.0.0.1:5735"
API = "http://127.0.0.1:5734"


class Trunkline:
    """Has what the rig's functions want of a target (`name`, `sip`, `t`, `run`, `pid()`), so that
    they measure it like any other."""

    def __init__(self, program, numbers):
        self.dir, self.run, self.proc, self.numbers = places.TARGET, None, None, numbers
        self.program, self.idle_kib = program, None
        with open(os.path.join(self.dir, "target.toml"), "rb") as text:
            self.t = tomllib.load(text)
        self.name, self.sip = self.t["name"], self.t["sip"]

    def start(self):
        """Starts it and waits until it answers OPTIONS."""
        self.run = tempfile.mkdtemp(prefix="trunkline-load-")
        for name in os.listdir(self.dir):
            if os.path.isfile(os.path.join(self.dir, name)):
                self._copy(name)
        env = os.environ | {
            "TRUNKLINE_BIN": self.program, "TRUNKLINE_LOAD_NUMBERS": str(self.numbers),
            "TRUNKLINE_LOAD_CACHE": os.path.join(places.scratch(), "stores"),
        }
        command = "ulimit -n $(ulimit -Hn); " + self._filled(self.t["start"])
        with open(self._log_path(), "wb") as log:
            self.proc = machine.run_quietly(
                machine.pinned(machine.GATEWAY_CPU, "sh", "-c", command),
                cwd=self.run, env=env, stdout=log, stderr=log)
        if not self._answers(self.t["ready_s"]):
            said = self.log()[-2000:]
            self.stop()
            raise places.Missing(f"the gateway does not answer OPTIONS:\n{said}")
        time.sleep(1.0)
        self.idle_kib = machine.usage(self.pid())[1]
        return self

    def stop(self):
        """Stops it as an operator would; whether it stopped in order and in time."""
        if not self.proc:
            return True
        self.proc.send_signal(signal.SIGTERM)
        try:
            code = self.proc.wait(3)
        except subprocess.TimeoutExpired:
            # Calls of a load that went beyond its bound may live on: a second signal ends them.
            self.proc.send_signal(signal.SIGTERM)
            try:
                code = self.proc.wait(10)
            except subprocess.TimeoutExpired:
                self.proc.kill()
                code = self.proc.wait()
        self.proc = None
        shutil.rmtree(self.run, ignore_errors=True)
        return code == 0

    def pid(self):
        return self.proc.pid

    def alive(self):
        return self.proc is not None and self.proc.poll() is None

    def log(self):
        with open(self._log_path(), encoding="utf-8", errors="replace") as text:
            return text.read()

    def metric(self, name, label=""):
        """Sum of a metric's lines whose labels contain `label`."""
        with urllib.request.urlopen(f"{OBSERVE}/metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
        wanted = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return sum(float(value) for full, _, value in wanted
                   if full.split("{")[0] == name and label in full)

    def holds(self):
        """What must be as before once calls are over."""
        return machine.held(self.pid()) | {
            "calls": self.metric("gateway_calls_live"),
            "media sessions": self.metric("gateway_media_sessions"),
            "media ports": self.metric("gateway_media_ports", 'state="in_use"'),
            "SIP transactions": self.metric("gateway_queue_depth", '_transactions"'),
            "SIP dialogs": self.metric("gateway_queue_depth", '"dialogs"'),
        }

    def wait_until_quiet(self, limit=40):
        """Whether calls, media, ports and transactions are all given back within `limit` seconds.

        Transactions outlive their call by 32 s at most (RFC 3261 section 17: 64 times T1)."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            held = self.holds()
            if not any(held[name] for name in held.keys() - {"open files", "threads"}):
                return True
            time.sleep(0.5)
        return False

    def ask(self, path):
        """A GET of the REST API with the key of the store."""
        with open(os.path.join(self.run, "data", "key"), encoding="ascii") as key:
            headers = {"Authorization": f"Bearer {key.read()}"}
        request = urllib.request.Request(API + path, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    def _filled(self, text):
        return text.replace("@RUN@", self.run)

    def _log_path(self):
        return os.path.join(self.run, "out.log")

    def _copy(self, name):
        with open(os.path.join(self.dir, name), encoding="utf-8") as source:
            text = source.read()
        with open(os.path.join(self.run, name), "w", encoding="utf-8") as out:
            out.write(self._filled(text))

    def _answers(self, limit):
        host, port = self.sip.split(":")
        end, count = time.monotonic() + limit, 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
            here.bind(("127.0.0.2", 0))
            here.settimeout(0.5)
            while self.alive() and time.monotonic() < end:
                count += 1
                try:
                    here.sendto(_options(here.getsockname()[1], self.sip, count),
                                (host, int(port)))
                    if here.recv(4096).startswith(b"SIP/2.0"):
                        return True
                except OSError:
                    time.sleep(0.1)
        return False


def _options(port, to, count):
    """A question that any SIP element answers (RFC 3261 section 11)."""
    lines = [
        f"OPTIONS sip:{to} SIP/2.0",
        f"Via: SIP/2.0/UDP 127.0.0.2:{port};branch=z9hG4bKready{count};rport",
        "Max-Forwards: 70", f"From: <sip:load@127.0.0.2>;tag=r{count}", f"To: <sip:{to}>",
        f"Call-ID: ready-{port}-{count}", "CSeq: 1 OPTIONS", "Content-Length: 0", "", "",
    ]
    return "\r\n".join(lines).encode()

"""Judges the served OpenAPI document by what the program does: schemathesis makes the requests.

    TRUNKLINE_API_KEY=ak_… python judge.py --url http://127.0.0.1:8080 --cases 1500

Every operation of the document is asked with what its schema allows and with what it forbids: its examples, its
bounds, at random, and in sequences that use what earlier answers returned. Wrong is a status of 500 or more; a
status, header, content type or body that the document does not promise; a request that the schema forbids and
the program takes; a method that is not there and is not refused; an operation that answers without a key.

That a request fits its schema and is refused is not wrong: rules between fields are told in words. Streams of
events are left out: they have no end to wait for.

The key should hold every scope. Nothing of value should be in the store: it is written to and deleted from. The key
itself is left alone, so that no revoked key makes every answer a documented 401.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

METHODS = {"get", "put", "post", "delete", "patch"}


def get(url, key=None):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as reply:
        return json.load(reply)


def operations(document):
    """The names of those to be asked; the one that serves the document is asked for it already."""
    return [
        item[method]["operationId"]
        for path, item in document["paths"].items()
        for method in METHODS & set(item)
        if not path.endswith("/openapi.json") and not is_endless(item[method])
    ]


def is_endless(operation):
    """Whether it answers with a stream of events, whose end a request would wait for."""
    replies = operation["responses"].values()
    return any("text/event-stream" in reply.get("content", {}) for reply in replies)


def settings(key, seconds):
    """The settings of a run. The key stands in a file of ours: arguments are seen by every process."""
    return f"""
request-timeout = {seconds}
continue-on-failure = true
headers = {{ Authorization = "Bearer {key}" }}

[checks]
positive_data_acceptance.enabled = false
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--cases", type=int, default=1500, help="at least so many requests in all")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    key = os.environ["TRUNKLINE_API_KEY"]
    document = get(f"{arguments.url}/openapi.json")
    asked = operations(document)
    # Besides the random ones there are those at the bounds, whose number follows from the document.
    examples = max(1, arguments.cases // len(asked))
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        config, report = folder / "schemathesis.toml", folder / "report.json"
        config.touch(mode=0o600)
        config.write_text(settings(key, seconds=20))
        command = [
            str(pathlib.Path(sys.executable).parent / "schemathesis"), "--no-color",
            "--config-file", str(config),
            "run", f"{arguments.url}/openapi.json",
            "--max-examples", str(examples), "--seed", str(arguments.seed),
            "--report", "json", "--report-json-path", str(report),
        ]
        for name in sorted(asked):
            command += ["--include-operation-id", name]
        own = key.split(".")[0].removeprefix("ak_")
        environment = {
            **os.environ,
            "SCHEMATHESIS_HOOKS": "judge_hooks",
            "PYTHONPATH": str(pathlib.Path(__file__).parent),
            "TRUNKLINE_OWN_KEY": own,
        }
        ended = subprocess.run(command, cwd=folder, env=environment, check=False)
        said = json.loads(report.read_text())
    cases = said["test_cases"]["generated"]
    print(f"{said['operations']['tested']} operations, {cases} requests, seed {said['seed']}")
    get(f"{arguments.url}/admin/members/me/scopes", key)
    if said["operations"]["tested"] != len(asked):
        sys.exit("not every operation was asked")
    if cases < arguments.cases:
        sys.exit(f"fewer requests than the {arguments.cases} that were wanted")
    sys.exit(ended.returncode)


if __name__ == "__main__":
    main()

"""A client of the stream of events, with nothing but Python's standard library.

    event_stream.py URL KEY_FILE [LAST_EVENT_ID]

Prints every server-sent event as a JSON object on a line of its own, and {"event": "end"} when the
stream is over.
"""

import json
import sys
import urllib.request


def main(url, key_file, last=None):
    with open(key_file, encoding="utf-8") as file:
        request = urllib.request.Request(url, headers={"Authorization": "Bearer " + file.read().strip()})
    if last:
        request.add_header("Last-Event-ID", last)
    with urllib.request.urlopen(request, timeout=60) as reply:
        fields = {}
        for line in reply:
            line = line.decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                told = {"event": fields["event"], "id": fields.get("id"), "data": json.loads(fields["data"])}
                print(json.dumps(told), flush=True)
                fields = {}
            else:
                fields = {}
    print(json.dumps({"event": "end"}), flush=True)


main(*sys.argv[1:])

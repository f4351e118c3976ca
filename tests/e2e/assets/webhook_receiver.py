"""A receiver of webhooks as a customer would write one, with nothing but Python's standard library.

Checks the signature of every delivery as the documentation says, and prints what it found, one JSON
object a line. A delivery whose signature is wrong is answered with 401.

    webhook_receiver.py SECRETS [STATUS ...]

SECRETS is a file with the secrets that are known, one a line; it is read anew for each delivery. The
first deliveries are answered with the STATUS codes given, the rest with 204. Prints
{"listening": PORT} first and runs until it is killed.
"""

import hashlib
import hmac
import http.server
import json
import sys
import time

TOLERANCE_SECONDS = 300


def is_genuine(header, body, secrets):
    fields = [part.split("=", 1) for part in header.split(",")]
    stamps = [value for name, value in fields if name == "t"]
    if len(stamps) != 1 or abs(time.time() - int(stamps[0])) > TOLERANCE_SECONDS:
        return False
    signed = stamps[0].encode() + b"." + body
    expected = [hmac.new(key.encode(), signed, hashlib.sha256).hexdigest() for key in secrets]
    given = [value for name, value in fields if name == "v1"]
    return any(hmac.compare_digest(one, other) for one in expected for other in given)


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(self.server.secrets, encoding="utf-8") as file:
            secrets = file.read().split()
        header = self.headers.get("Trunkline-Signature", "")
        genuine = is_genuine(header, body, secrets)
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        status = status if genuine else 401
        told = {
            "genuine": genuine,
            "signatures": header.count("v1="),
            "status": status,
            "attempt": int(self.headers["Trunkline-Delivery-Attempt"]),
            "event_id": self.headers["Trunkline-Event-Id"],
            "event": json.loads(body),
        }
        print(json.dumps(told), flush=True)
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def main(secrets, *statuses):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.secrets = secrets
    server.statuses = [int(status) for status in statuses]
    print(json.dumps({"listening": server.server_port}), flush=True)
    server.serve_forever()


main(*sys.argv[1:])

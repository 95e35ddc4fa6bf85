#!/usr/bin/env bash
# httpx 0.28.1: a dict of headers whose names differ in case only is sent as two headers of one name.
#
# A sender of webhooks puts its own {"content-type": "application/json"} and the user's headers into one dict, and the user has written
# "Content-Type". requests 2.32.5 takes the two for one name and sends the last. httpx sends both, in the order of the dict. HTTP
# lets a receiver treat a second Content-Type as it likes (RFC 9110, 5.3): http.server of Python reads the first, others refuse the
# request or join both with a comma. Neither client reports anything.
#
# Seen with Python 3.11 from PyPI:
#   httpx: ['application/json', 'application/cloudevents+json']
#   requests: ['application/cloudevents+json']
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet httpx==0.28.1 requests==2.32.5
said=$("$folder/venv/bin/python" - <<'PYTHON'
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import requests

seen = []


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        seen.append(self.headers.get_all("content-type"))
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = HTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=server.serve_forever, daemon=True).start()
url = f"http://127.0.0.1:{server.server_port}/"
headers = {"content-type": "application/json"} | {"Content-Type": "application/cloudevents+json"}
with httpx.Client(trust_env=False) as client:
    client.post(url, content=b"{}", headers=headers)
with requests.Session() as session:
    session.trust_env = False
    session.post(url, data=b"{}", headers=headers)
print("httpx:", seen[0])
print("requests:", seen[1])
PYTHON
)
printf '%s\n' "$said"
expected="httpx: ['application/json', 'application/cloudevents+json']
requests: ['application/cloudevents+json']"
[ "$said" = "$expected" ] || { echo "httpx or requests behave in another way than is written here" >&2; exit 1; }

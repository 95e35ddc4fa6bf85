"""Receives events by HTTP with Python's SDK of CloudEvents, and prints each as one line of JSON.

receive.py: the first line is the port.
"""

import http.server
import json
import sys

from cloudevents.core.bindings.http import HTTPMessage, from_http_event


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        event = from_http_event(HTTPMessage(headers=dict(self.headers.items()), body=body))
        attributes = {name: str(value) for name, value in event.get_attributes().items() if value is not None}
        attributes["time"] = event.get_time().isoformat()
        data = event.get_data()
        shown = data.hex() if isinstance(data, bytes) else data
        print(json.dumps({"path": self.path, "attributes": attributes, "data": shown}), flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
sys.stderr.flush()
server.serve_forever()

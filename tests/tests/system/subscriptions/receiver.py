"""A receiver of webhooks, made of the official SDK of CloudEvents and the library of Standard Webhooks.

It refuses every fifth request, and writes each event that it accepts to a file, one JSON object a line, before
it answers. A request that one of the libraries refuses is written as a line with `wrong`.
"""

import itertools
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks.webhooks import Webhook

PORT, PATH = int(sys.argv[1]), sys.argv[2]
# The second of the two secrets: a receiver verifies with the one that it has.
WEBHOOK = Webhook(os.environ["RECEIVER_SECRET"])
COUNT, LOCK = itertools.count(1), threading.Lock()
STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"


def events(headers, body):
    """Reads a single event or a batch. The SDK has no batches: each element is an event of its own."""
    if headers["content-type"] == STRUCTURED:
        return [from_http_event(HTTPMessage(headers, body))]
    assert headers["content-type"] == BATCH, headers["content-type"]
    elements = json.loads(body)
    single = {**headers, "content-type": STRUCTURED}
    return [from_http_event(HTTPMessage(single, json.dumps(element).encode())) for element in elements]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = 500 if next(COUNT) % 5 == 0 else 204
        try:
            WEBHOOK.verify(body, headers, json_parse=False)
            lines = [
                {
                    "id": event.get_id(),
                    "source": event.get_source(),
                    "type": event.get_type(),
                    "subject": event.get_subject(),
                    "sequence": event.get_extension("sequence"),
                    "definition": event.get_extension("definition"),
                    "at": event.get_time().isoformat(),
                    "data": event.get_data(),
                }
                for event in events(headers, body)
            ]
        except Exception as error:
            status, lines = 400, [{"wrong": repr(error)}]
        if status != 500:
            with LOCK, open(PATH, "a") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        pass


ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()

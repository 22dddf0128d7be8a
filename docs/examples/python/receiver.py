"""Takes in the messages of Plausible Webhooks: each once, into a folder."""

import json
import logging
import os
import re
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from verify import verify

INBOX = os.environ.get("INBOX", "inbox")
LARGEST_BODY = 4 * 1024 * 1024
ID_FORM = re.compile(r"[A-Za-z0-9_-]{1,100}")  # the id becomes a file's name


class Receiver(BaseHTTPRequestHandler):
    timeout = 10  # seconds for the next bytes of a request

    def do_POST(self):
        if self.path != "/webhooks":
            return self.answer(404, "POST to /webhooks")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            return self.answer(413, "the body is too large, or of unknown length")
        # The bytes as they came: JSON that was parsed and written again has another signature.
        body = self.rfile.read(int(length))
        try:
            verify(body, self.headers)
        except Exception as error:
            return self.answer(401, str(error))
        try:
            is_new = keep(self.headers["webhook-id"], body)
        except Exception as error:
            self.log_error("%s", error)
            return self.answer(500, "the message cannot be kept")
        self.answer(204)
        if is_new:
            work(json.loads(body))

    def answer(self, status, text=""):
        self.send_response(status)
        if text:
            self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(text.encode())


def keep(webhook_id, body):
    """Stores a message, and tells whether it is new.

    A name is linked once, whoever else tries at the same time, and the file behind it is complete.
    """
    if not ID_FORM.fullmatch(webhook_id):
        raise ValueError("the webhook-id is malformed")
    with tempfile.NamedTemporaryFile(dir=INBOX, prefix="part-") as part:
        part.write(body)
        part.flush()
        try:
            os.link(part.name, os.path.join(INBOX, webhook_id + ".json"))
        except FileExistsError:
            return False
    return True


def work(message):
    """Here yours begins. The sender has its answer already."""
    if message["type"] == "batch":
        for one in message["data"]["messages"]:
            work(one)
        return
    logging.info("%s %s", message["type"], message["data"]["id"])


logging.basicConfig(level=logging.INFO, format="%(message)s")
os.makedirs(INBOX, mode=0o700, exist_ok=True)
server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8080"))), Receiver)
logging.info("listening on http://127.0.0.1:%d", server.server_port)
server.serve_forever()

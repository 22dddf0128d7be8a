import base64
import hashlib
import hmac
import os
import time

TOLERANCE = 5 * 60  # seconds that a message may be old, or the sender's clock ahead

prefix, _, encoded = os.environ.get("WEBHOOK_SECRET", "").partition("_")
KEY = base64.b64decode(encoded)
if prefix != "whsec" or len(KEY) < 24:
    raise SystemExit("WEBHOOK_SECRET must be the webhook's secret, whsec_…")


def verify(body, headers):
    """Raises an error unless the message is genuine and of these minutes."""
    webhook_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not webhook_id or not timestamp.isdecimal():
        raise ValueError("the webhook-id or the webhook-timestamp is missing or malformed")
    if abs(time.time() - int(timestamp)) > TOLERANCE:
        raise ValueError("the webhook-timestamp is too old or too new")
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256))
    for signature in headers.get("webhook-signature", "").split(" "):
        if hmac.compare_digest(signature.encode(), expected):  # takes the same time wherever they differ
            return
    raise ValueError("no signature matches")

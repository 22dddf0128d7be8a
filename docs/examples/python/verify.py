import os

from standardwebhooks import Webhook

if not os.environ.get("WEBHOOK_SECRET"):
    raise SystemExit("WEBHOOK_SECRET must be the webhook's secret, whsec_…")
webhook = Webhook(os.environ["WEBHOOK_SECRET"])


def verify(body, headers):
    """Raises an error unless the message is genuine and of these minutes."""
    webhook.verify(body, dict(headers))

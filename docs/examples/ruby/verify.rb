require "standardwebhooks"

secret = ENV.fetch("WEBHOOK_SECRET", "")
abort "WEBHOOK_SECRET must be the webhook's secret, whsec_…" if secret.empty?
WEBHOOK = StandardWebhooks::Webhook.new(secret)

# Raises an error unless the message is genuine and of these minutes.
def verify(body, headers)
  WEBHOOK.verify(body, headers)
end

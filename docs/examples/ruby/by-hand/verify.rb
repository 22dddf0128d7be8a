require "openssl"

TOLERANCE = 5 * 60 # seconds that a message may be old, or the sender's clock ahead

prefix, encoded = ENV.fetch("WEBHOOK_SECRET", "").split("_", 2)
KEY = encoded.to_s.unpack1("m")
abort "WEBHOOK_SECRET must be the webhook's secret, whsec_…" if prefix != "whsec" || KEY.bytesize < 24

# Raises an error unless the message is genuine and of these minutes.
def verify(body, headers)
  id, timestamp, signatures = headers.values_at("webhook-id", "webhook-timestamp", "webhook-signature").map(&:to_s)
  raise "the webhook-id or the webhook-timestamp is missing or malformed" if id.empty? || !timestamp.match?(/\A\d+\z/)
  raise "the webhook-timestamp is too old or too new" if (Time.now.to_i - timestamp.to_i).abs > TOLERANCE

  mac = OpenSSL::HMAC.digest("SHA256", KEY, "#{id}.#{timestamp}.".b + body)
  expected = "v1,#{[mac].pack("m0")}"
  # The comparison takes the same time wherever they differ.
  raise "no signature matches" unless signatures.split(" ").any? { |signature| OpenSSL.secure_compare(signature, expected) }
end

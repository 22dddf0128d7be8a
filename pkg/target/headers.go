package target

import (
	"net/textproto"
	"strings"
)

// ReservedHeader tells, for a name in any case, the headers that a webhook's owner may not set:
// ours, those that steer the connection or say who is at its ends, and those that would make the
// HTTP client repeat a request on its own (Idempotency-Key). The api refuses them, and the
// dispatcher leaves them out whatever is stored.
func ReservedHeader(name string) bool {
	name = textproto.CanonicalMIMEHeaderKey(name)
	switch name {
	case "Accept-Encoding", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Forwarded", "Host",
		"Http2-Settings", "Idempotency-Key", "Keep-Alive", "Te", "Traceparent", "Tracestate", "Trailer", "Transfer-Encoding", "Upgrade",
		"User-Agent", "Via", "X-Idempotency-Key":
		return true
	}
	return strings.HasPrefix(name, "Webhook-") || strings.HasPrefix(name, "Proxy-") || strings.HasPrefix(name, "X-Forwarded-")
}

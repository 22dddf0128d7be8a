package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/target"
)

// Class groups failures for metrics. The set is closed.
type Class string

// The classes of failures.
const (
	Refused  Class = "refused_address"
	Timeout  Class = "timeout"
	DNS      Class = "dns"
	Connect  Class = "connect"
	TLS      Class = "tls"
	Closed   Class = "closed"
	Protocol Class = "protocol"
)

// Classes lists them all.
var Classes = []Class{Refused, Timeout, DNS, Connect, TLS, Closed, Protocol}

// Failure is why no answer came. Its text is stable and fit for the webhook's owner: it holds
// no address, no resolver's name and no URL, which are the operator's or somebody's secret.
type Failure struct {
	Class Class
	Text  string
}

// classify is total: an error of an unknown kind is named after what was going on.
func classify(err error, during phase, timeout time.Duration) *Failure {
	var (
		dns       *net.DNSError
		timed     net.Error
		record    tls.RecordHeaderError
		alert     tls.AlertError
		invalid   x509.CertificateInvalidError
		wrongHost x509.HostnameError
		unknownCA x509.UnknownAuthorityError
	)
	switch {
	case errors.Is(err, target.ErrRefusedAddress):
		return &Failure{Refused, "the URL " + target.ErrRefusedAddress.Error()}
	case errors.Is(err, target.ErrDenied):
		return &Failure{Refused, "the URL " + target.ErrDenied.Error()}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errTimeout), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timed) && timed.Timeout():
		if during == resolving || during == connecting || during == handshaking {
			timeout = min(timeout, connectTimeout)
		}
		return &Failure{Timeout, "timed out after " + seconds(timeout) + " while " + string(during)}
	case errors.As(err, &dns) && dns.IsNotFound:
		return &Failure{DNS, "the host's name does not exist"}
	case errors.As(err, &dns):
		return &Failure{DNS, "the host's name could not be resolved"}
	case errors.As(err, &record):
		return &Failure{TLS, "the host does not speak TLS on this port"}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return &Failure{TLS, "the host's certificate has expired or is not valid yet"}
	case errors.As(err, &wrongHost):
		return &Failure{TLS, "the host's certificate is for another name"}
	case errors.As(err, &unknownCA):
		return &Failure{TLS, "the host's certificate is signed by an unknown authority"}
	case errors.As(err, &invalid), errors.As(err, &alert), during == handshaking:
		return &Failure{TLS, "the TLS handshake failed"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Failure{Connect, "the connection was refused"}
	case during == resolving, during == connecting:
		return &Failure{Connect, "the host could not be reached"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE),
		errors.Is(err, net.ErrClosed), during == sending:
		return &Failure{Closed, "the connection was closed before an answer came"}
	}
	return &Failure{Protocol, "the answer is not valid HTTP, or its headers are too large"}
}

func seconds(d time.Duration) string {
	return strconv.FormatFloat(d.Seconds(), 'f', -1, 64) + " s"
}

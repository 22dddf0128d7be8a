package pwh

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/tmaxmax/go-sse"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/signature"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/client"
)

const (
	// silence is three of the api's signs of life.
	silence = 45 * time.Second
	// largestMessage is more than any message has.
	largestMessage = 4 << 20
	// forwardTime is the longest that a webhook's receiver may take as well.
	forwardTime = 30 * time.Second
)

type listenCommand struct {
	Forward     string `required:"" placeholder:"URL" help:"Where each message is sent as a POST, such as http://127.0.0.1:3000/hook."`
	Secret      string `env:"PWH_SECRET" placeholder:"whsec_…" help:"What the messages are signed with; default a new one."`
	AllowRemote bool   `help:"Forward to an address that is neither of this machine nor private."`
}

func (c *listenCommand) Run(ctx context.Context, s *session) error {
	api, site, err := s.ofSite()
	if err != nil {
		return err
	}
	f, err := c.forwarder(ctx, s)
	if err != nil {
		return err
	}
	defer f.http.CloseIdleConnections()
	if c.Secret == "" {
		s.say("The messages are signed with %s, which was made for this run; --secret takes another.", f.secret.Reveal())
	}
	wait := firstWait
	for {
		connected, err := f.listen(ctx, api, site)
		switch {
		case ctx.Err() != nil || s.out.failed():
			return nil
		case refusedWith(err, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound):
			return err
		case connected:
			wait = firstWait
		}
		s.say("The stream broke off (%v). It is opened again in %s; what fires meanwhile is not seen here, but in pwh deliveries.", err, wait)
		if !pause(ctx, wait) {
			return nil
		}
		wait = min(2*wait, longestWait)
	}
}

type forwarder struct {
	session *session
	target  string
	secret  signature.Secret
	http    *http.Client
}

func (c *listenCommand) forwarder(ctx context.Context, s *session) (*forwarder, error) {
	f := &forwarder{session: s, target: c.Forward, secret: signature.NewSecret()}
	if c.Secret != "" {
		var err error
		if f.secret, err = signature.ParseSecret(c.Secret); err != nil {
			return nil, usage("--secret cannot be used: %v", err)
		}
	}
	target, err := url.Parse(c.Forward)
	if err != nil || target.Host == "" || target.Scheme != "http" && target.Scheme != "https" {
		return nil, usage("--forward must be a URL such as http://127.0.0.1:3000/hook")
	}
	if !c.AllowRemote {
		if err := requireNear(ctx, target.Hostname()); err != nil {
			return nil, err
		}
	}
	dialer := &net.Dialer{Timeout: forwardTime, Control: func(_, address string, _ syscall.RawConn) error {
		// Checked again here, as a name may lead elsewhere by now.
		if to, err := netip.ParseAddrPort(address); !c.AllowRemote && (err != nil || !isNear(to.Addr())) {
			return errRemote
		}
		return nil
	}}
	f.http = &http.Client{
		Transport:     &http.Transport{DialContext: dialer.DialContext}, // without a proxy, which would hide the address
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       forwardTime,
	}
	return f, nil
}

var errRemote = errors.New("it is neither on this machine nor in a private network")

func requireNear(ctx context.Context, host string) error {
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return fmt.Errorf("the host of --forward cannot be found (%w): check it", err)
	}
	for _, address := range addresses {
		if !isNear(address) {
			return usage("%s is neither on this machine nor in a private network, and messages tell of a site's visitors: give --allow-remote if they may go there", host)
		}
	}
	return nil
}

func isNear(a netip.Addr) bool { return a.Unmap().IsLoopback() || a.Unmap().IsPrivate() }

// listen forwards what one connection brings, until it ends.
func (f *forwarder) listen(ctx context.Context, api *client.Client, site string) (connected bool, _ error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	response, err := api.StreamMessages(ctx, site)
	if err != nil {
		return false, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		_, err := read[struct{}](response, nil)
		return false, err
	}
	f.session.say("Listening: each message of %s is sent to %s, until Ctrl-C.", site, f.target)
	watchdog := time.AfterFunc(silence, func() { cancel(fmt.Errorf("there was no sign of life for %s", silence)) })
	defer watchdog.Stop()
	for event, err := range sse.Read(watched{response.Body, watchdog}, &sse.ReadConfig{MaxEventSize: largestMessage}) {
		if err != nil {
			return true, cmp.Or(context.Cause(ctx), err)
		}
		if event.Type == "message" {
			f.forward(ctx, event.LastEventID, []byte(event.Data))
		}
	}
	return true, errors.New("the api closed it")
}

// watched lets a watchdog bark only while it reads: what is forwarded takes its time.
type watched struct {
	io.Reader
	watchdog *time.Timer
}

func (w watched) Read(p []byte) (int, error) {
	w.watchdog.Reset(silence)
	defer w.watchdog.Stop()
	return w.Reader.Read(p)
}

// forwarded is what --json prints of a message.
type forwarded struct {
	ID         string          `json:"id"`
	StatusCode *int            `json:"status_code"`
	DurationMS float64         `json:"duration_ms"`
	Error      *string         `json:"error"`
	Message    json.RawMessage `json:"message"`
}

// forward sends a message as a dispatcher would, once: whatever comes back, the next one follows.
func (f *forwarder) forward(ctx context.Context, id string, body []byte) {
	started := time.Now()
	status, err := f.post(ctx, id, started, body)
	if ctx.Err() != nil {
		return
	}
	told := forwarded{ID: id, DurationMS: float64(time.Since(started).Microseconds()) / 1000, Message: body}
	outcome := "no answer"
	if err == nil {
		told.StatusCode = &status
		outcome = strconv.Itoa(status)
	} else {
		told.Error = new(err.Error())
	}
	if f.session.JSON {
		line, err := json.Marshal(told)
		if err != nil {
			f.session.say("The message %s cannot be shown (%v), but was forwarded.", id, err)
			return
		}
		f.session.machine(line)
		return
	}
	var message struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(body, &message) // what is no message has no type
	f.session.out.printf("%s  %-30s  %-25s  %s in %s\n", started.In(f.session.zone).Format(time.TimeOnly), clean(id), clean(message.Type), outcome, milliseconds(told.DurationMS))
	if told.Error != nil {
		for _, line := range wrap(*told.Error, lineWidth-2) {
			f.session.out.printf("  %s\n", line)
		}
	}
}

func (f *forwarder) post(ctx context.Context, id string, at time.Time, body []byte) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, f.target, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "pwh")
	request.Header.Set(signature.HeaderID, id)
	request.Header.Set(signature.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	request.Header.Set(signature.HeaderSignature, signature.Sign(id, at, body, f.secret))
	response, err := f.http.Do(request)
	if failed := new(url.Error); errors.As(err, &failed) {
		return 0, failed.Err
	}
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, largestMessage))
	return response.StatusCode, err
}

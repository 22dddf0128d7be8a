package main

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/caarlos0/env/v11"
)

// settings are what the environment says about the stack itself. Everything else in it goes to
// the services.
type settings struct {
	dir                                       string // absolute
	api, receiver, nats, postgres, clickhouse *endpoint
	metrics                                   *endpoint
	traffic                                   bool
	environ                                   []string
}

// endpoint is an address of this machine that something of the stack listens on.
type endpoint struct {
	what, variable string
	host           string
	port           int // 0: any free one, until it is claimed
}

func (e *endpoint) address() string { return net.JoinHostPort(e.host, strconv.Itoa(e.port)) }

// url is how a program on this machine reaches it.
func (e *endpoint) url() string {
	host := e.host
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = loopback
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(e.port))
}

const loopback = "127.0.0.1"

// readSettings reports every problem at once.
func readSettings(environ []string) (settings, error) {
	variables := env.ToMap(environ)
	var problems []error
	refuse := func(format string, arguments ...any) { problems = append(problems, fmt.Errorf(format, arguments...)) }
	read := func(name, otherwise string) string {
		value, given := variables[name]
		if !given {
			return otherwise
		}
		if strings.TrimSpace(value) == "" {
			refuse("%s is empty: give a value, or unset it for the default, %s", name, otherwise)
			return otherwise
		}
		return strings.TrimSpace(value)
	}
	port := func(what, name string, otherwise int) *endpoint {
		e := &endpoint{what: what, variable: name, host: loopback}
		text := read(name, strconv.Itoa(otherwise))
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			refuse("%s is %q: it must be a port between 1 and 65535, or 0 for any free one", name, text)
		}
		e.port = int(n)
		return e
	}
	s := settings{
		environ:    environ,
		api:        port("the API", "API_PORT", 8080),
		receiver:   port("the receiver", "RECEIVER_PORT", 8090),
		nats:       port("NATS", "NATS_PORT", 4222),
		postgres:   port("Postgres", "POSTGRES_PORT", 5433),
		clickhouse: port("ClickHouse", "CLICKHOUSE_PORT", 8123),
		metrics:    &endpoint{what: "metrics and health", variable: "METRICS_ADDR"},
	}
	metrics := read("METRICS_ADDR", loopback+":9090")
	host, text, err := net.SplitHostPort(metrics)
	n, err2 := strconv.ParseUint(text, 10, 16)
	if errors.Join(err, err2) != nil {
		refuse("METRICS_ADDR is %q: it must be a host and a port, such as 127.0.0.1:9090", metrics)
	}
	s.metrics.host, s.metrics.port = host, int(n)

	switch text := read("TRAFFIC", "on"); strings.ToLower(text) {
	case "on", "true", "yes", "1":
		s.traffic = true
	case "off", "false", "no", "0":
	default:
		refuse("TRAFFIC is %q: it must be on or off", text)
	}
	if s.dir, err = filepath.Abs(read("LOCAL_DIR", ".local")); err != nil {
		refuse("LOCAL_DIR: %w", err)
	}
	byPort := map[int]*endpoint{}
	for _, e := range s.endpoints(true) {
		if other := byPort[e.port]; other != nil && e.port != 0 {
			refuse("%s and %s are both %d: each needs a port of its own", other.variable, e.variable, e.port)
		}
		byPort[e.port] = e
	}
	// What the services would refuse is refused now, not after the engines are up.
	_, err = loadServices(s.environment(secrets{PlausibleSecretKeyBase: samplePassphrase, SecretsKey: sampleKey}, addresses{
		database: "postgres://host/database", plausible: "postgres://host/database", clickhouse: "http://host/database", nats: "nats://host",
	}))
	return s, allOf(append(problems, each(err)...))
}

// Values that the services accept while their configuration is only checked.
const (
	samplePassphrase = "checked only, and never used: 64 characters as Plausible has them"
	sampleKey        = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)

// endpoints lists what listens; engines only if they are started here.
func (s settings) endpoints(engines bool) []*endpoint {
	all := []*endpoint{s.api, s.receiver, s.metrics}
	if engines {
		all = append(all, s.nats, s.postgres, s.clickhouse)
	}
	return all
}

// claim finds out which ports are taken, all of them, and replaces 0 by a free one. Ports are
// not held: between here and their use only a very quick program gets them.
func claim(endpoints []*endpoint) []error {
	var problems []error
	for _, e := range endpoints {
		l, err := net.Listen("tcp", e.address())
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			problems = append(problems, fmt.Errorf("port %d of %s (%s) is taken by another program: stop it, or set %s to a free one",
				e.port, e.variable, e.what, e.variable))
		case err != nil:
			problems = append(problems, fmt.Errorf("%s (%s) cannot be listened on: %w", e.variable, e.what, err))
		default:
			defer l.Close()
			e.port = l.Addr().(*net.TCPAddr).Port
		}
	}
	return problems
}

// addresses are where the engines answer.
type addresses struct{ database, plausible, clickhouse, nats string }

// environment is what the services read. Where the databases are and how they are locked is the
// stack's own business: what was exported for another installation, or sourced from an earlier
// stack.env, must not be migrated or written to. For the rest, what the user gives wins, empty
// included.
func (s settings) environment(keep secrets, at addresses) []string {
	variables := env.ToMap(s.environ)
	for name, value := range map[string]string{
		"DATABASE_URL":              at.database,
		"PLAUSIBLE_DATABASE_URL":    at.plausible,
		"PLAUSIBLE_CLICKHOUSE_URL":  at.clickhouse,
		"PLAUSIBLE_SECRET_KEY_BASE": keep.PlausibleSecretKeyBase,
		"NATS_URL":                  at.nats,
		"SECRETS_KEY":               keep.SecretsKey,
		"LISTEN_ADDR":               s.api.address(),
		"METRICS_ADDR":              s.metrics.address(),
	} {
		variables[name] = value
		delete(variables, name+"_FILE")
	}
	for name, value := range map[string]string{
		"PLAUSIBLE_BASE_URL": "http://localhost:8000",
		// For the bundled receiver.
		"ALLOW_HTTP_TARGETS":    "true",
		"ALLOW_PRIVATE_TARGETS": "127.0.0.0/8,::1/128",
	} {
		_, given := variables[name]
		_, givenByFile := variables[name+"_FILE"]
		if !given && !givenByFile {
			variables[name] = value
		}
	}
	environ := make([]string, 0, len(variables))
	for name, value := range variables {
		environ = append(environ, name+"="+value)
	}
	return environ
}

// each is the single problems of an error that joins several.
func each(err error) []error {
	var several interface{ Unwrap() []error }
	switch {
	case err == nil:
		return nil
	case errors.As(err, &several):
		var all []error
		for _, err := range several.Unwrap() {
			all = append(all, each(err)...)
		}
		return all
	}
	return []error{err}
}

// allOf is one error of many, each said once.
func allOf(problems []error) error {
	slices.SortStableFunc(problems, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	problems = slices.CompactFunc(problems, func(a, b error) bool { return a.Error() == b.Error() })
	return errors.Join(problems...)
}

// Package pwh is the command-line client of the api: it lists, creates, tests, watches and verifies
// webhooks, and brings a site's messages to a program on the developer's own machine.
//
// What was asked for goes to the standard output, what is told about it to the standard error. The API
// key goes to neither. It ends with 0 if it worked, with 1 if the api refused or a check failed, and
// with 2 if it was called wrongly.
package pwh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/client"
)

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

type grammar struct {
	settings `embed:""`

	Sites      sitesCommand      `cmd:"" help:"List the sites that the key can see."`
	Goals      goalsCommand      `cmd:"" help:"List a site's goals."`
	Types      typesCommand      `cmd:"" help:"List the trigger types, or the fields of one. No key is needed."`
	Webhooks   webhooksCommand   `cmd:"" help:"List a site's webhooks."`
	Show       showCommand       `cmd:"" help:"Show a webhook and its triggers."`
	Create     createCommand     `cmd:"" help:"Create a webhook; its secret is shown once."`
	Delete     deleteCommand     `cmd:"" help:"Delete a webhook with its triggers."`
	Enable     enableCommand     `cmd:"" help:"Send to a webhook again, also if it was disabled because it failed."`
	Disable    disableCommand    `cmd:"" help:"Send nothing to a webhook for now; what fires waits."`
	Rotate     rotateCommand     `cmd:"" help:"Make a webhook a new secret, which is shown once."`
	Test       testCommand       `cmd:"" help:"Send a webhook.ping to a webhook."`
	Deliveries deliveriesCommand `cmd:"" help:"List what was sent to a webhook, or waits to be."`
	Delivery   deliveryCommand   `cmd:"" help:"Show a delivery with its attempts and its message."`
	Tail       tailCommand       `cmd:"" help:"Watch a webhook's deliveries until Ctrl-C."`
	Retry      retryCommand      `cmd:"" help:"Send a delivery again now."`
	Recover    recoverCommand    `cmd:"" help:"Send again what failed in a time, and watch it."`
	Preview    previewCommand    `cmd:"" help:"Show when a trigger would have fired; nothing is stored."`
	Explain    explainCommand    `cmd:"" help:"Explain why a trigger has, or has not, fired."`
	Listen     listenCommand     `cmd:"" help:"Forward a site's messages, signed, to a program in development."`
	Verify     verifyCommand     `cmd:"" help:"Verify a message's signature. Nothing is sent anywhere."`
}

type settings struct {
	URL     string `name:"url" env:"PWH_URL" default:"http://127.0.0.1:8080" help:"Where the api is."`
	Key     string `env:"PWH_API_KEY" placeholder:"KEY" help:"A Plausible API key."`
	KeyFile string `env:"PWH_API_KEY_FILE" placeholder:"FILE" help:"A file with the key."`
	Site    string `env:"PWH_SITE" placeholder:"DOMAIN" help:"The site: its domain or its id."`
	JSON    bool   `name:"json" help:"Print what the api answers, as it is."`
}

// Run is the program. The environment is what os.Environ returns; of it also TZ is heard.
func Run(ctx context.Context, arguments []string, stdin io.Reader, stdout, stderr io.Writer, environment []string) int {
	variables := map[string]string{}
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		variables[name] = value
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = 30 * time.Second // twice what the api takes at most
	defer transport.CloseIdleConnections()
	s := &session{stdin: stdin, out: &output{to: stdout}, notes: &output{to: stderr}, transport: transport, zone: time.Local}
	if zone, set := variables["TZ"]; set {
		if known, err := time.LoadLocation(zone); err == nil {
			s.zone = known
		}
	}
	if len(arguments) == 0 {
		arguments = []string{"--help"}
	}
	code := s.report(ctx, s.run(ctx, arguments, variables))
	if err := s.out.err; err != nil && code == exitDone {
		return s.report(ctx, fmt.Errorf("the output could not be written: %w", err))
	}
	return code
}

func (s *session) run(ctx context.Context, arguments []string, environment map[string]string) error {
	var commands grammar
	helped := false
	parser, err := kong.New(&commands, kong.Name("pwh"), kong.Description("The command-line client of Plausible Webhooks."),
		kong.Writers(s.out.to, s.notes.to), kong.Exit(func(int) { helped = true }), kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: lineWidth}),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.ValueFormatter(nameVariable), kong.Resolvers(readEnvironment(environment)))
	if err != nil {
		return err
	}
	if err := hideEnvironment(parser); err != nil {
		return err
	}
	parsed, err := parser.Parse(arguments)
	if helped {
		return nil
	}
	if wrong := new(kong.ParseError); errors.As(err, &wrong) {
		help := "pwh --help"
		if command := wrong.Context.Selected(); command != nil {
			help = command.FullPath() + " --help"
		}
		return usage("%s: see %s", wrong.Error(), help)
	}
	if err != nil {
		return err
	}
	s.settings = commands.settings
	return parsed.Run(s)
}

// hideEnvironment keeps kong from reading the process' own environment beside the one that was given.
func hideEnvironment(k *kong.Kong) error {
	return kong.Visit(k.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, is := node.(*kong.Flag); is {
			flag.Tag.Envs = nil
		}
		return next(nil)
	})
}

func readEnvironment(environment map[string]string) kong.ResolverFunc {
	return func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
		for _, name := range flag.Envs {
			if value := environment[name]; value != "" {
				return value, nil
			}
		}
		return nil, nil
	}
}

// nameVariable writes a flag's variable into its help, never the variable's value.
func nameVariable(value *kong.Value) string {
	if value.Flag == nil || len(value.Flag.Envs) == 0 {
		return value.Help
	}
	return strings.TrimSuffix(value.Help, ".") + " ($" + value.Flag.Envs[0] + ")."
}

// session is one run: what its command works with.
type session struct {
	settings
	stdin     io.Reader
	out       *output // what was asked for
	notes     *output // what is told about it
	transport *http.Transport
	zone      *time.Location // of the times that are shown
}

// misuse is a call that cannot be understood.
type misuse struct{ sentence string }

func (m *misuse) Error() string { return m.sentence }

func usage(format string, arguments ...any) error {
	return &misuse{fmt.Sprintf(format, arguments...)}
}

// report tells what went wrong and returns the exit code.
func (s *session) report(ctx context.Context, err error) int {
	wrong, refused := new(misuse), new(refusal)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &wrong):
		s.notes.printf("pwh: %s.\n", wrong.sentence)
		return exitUsage
	case errors.As(err, &refused):
		if s.JSON && refused.raw != nil {
			s.out.printf("%s\n", refused.raw)
		}
		refused.print(s.notes)
	case ctx.Err() != nil:
		s.notes.printf("pwh: interrupted.\n")
	default:
		s.notes.printf("pwh: %s.\n", strings.TrimSuffix(clean(err.Error()), "."))
	}
	return exitFailed
}

// say tells something about what was asked for.
func (s *session) say(format string, arguments ...any) {
	s.notes.printf("%s\n", clean(fmt.Sprintf(format, arguments...)))
}

// field is a line of what is shown of one thing.
func (s *session) field(name, text string) { s.out.printf("%-12s %s\n", name, clean(text)) }

// machine tells whether --json was given, and prints the api's answer then.
func (s *session) machine(raw []byte) bool {
	if s.JSON && len(raw) > 0 {
		s.out.printf("%s\n", raw)
	}
	return s.JSON
}

// withoutKey is the api for what everybody may ask.
func (s *session) withoutKey() (*client.Client, error) {
	return s.connect("")
}

// withKey is the api.
func (s *session) withKey() (*client.Client, error) {
	key := s.Key
	switch {
	case key != "" && s.KeyFile != "":
		return nil, usage("the key is given twice, as --key or $PWH_API_KEY and as --key-file or $PWH_API_KEY_FILE: leave one away")
	case s.KeyFile != "":
		text, err := os.ReadFile(s.KeyFile)
		if err != nil {
			return nil, usage("the file with the key cannot be read (%v): check --key-file or $PWH_API_KEY_FILE", err)
		}
		key = string(text)
	}
	key = strings.TrimSpace(key)
	if key == "" {
		return nil, usage("a Plausible API key is needed: give it as $PWH_API_KEY or --key-file")
	}
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, usage("the API key has a character that no key has: check $PWH_API_KEY or --key-file")
	}
	return s.connect(key)
}

// ofSite is the api, and the site that a command is about.
func (s *session) ofSite() (*client.Client, string, error) {
	api, err := s.withKey()
	if err == nil && s.Site == "" {
		err = usage("a site is needed: give it as --site or $PWH_SITE; pwh sites lists them")
	}
	return api, s.Site, err
}

func (s *session) connect(key string) (*client.Client, error) {
	if address, err := url.Parse(s.URL); err != nil || address.Host == "" || address.Scheme != "http" && address.Scheme != "https" {
		return nil, usage("the api's address must be like http://127.0.0.1:8080: check --url or $PWH_URL")
	}
	return client.NewClient(s.URL, client.WithHTTPClient(&caller{session: s, key: key, http: &http.Client{
		Transport: s.transport,
		// The api sends nobody elsewhere, and what it was sent is not for others.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}))
}

// input reads a file, or - for the standard input, and is not held up by a terminal at which nobody types when ctx ends.
func (s *session) input(ctx context.Context, file string, read func(io.Reader) ([]byte, error)) ([]byte, error) {
	from := s.stdin
	if cmp.Or(file, "-") != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, usage("the file cannot be read: %v", err)
		}
		defer opened.Close()
		from = opened
	}
	type text struct {
		content []byte
		err     error
	}
	come := make(chan text, 1)
	go func() {
		content, err := read(from)
		come <- text{content, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case t := <-come:
		return t.content, t.err
	}
}

// pause waits, and tells whether ctx did not end meanwhile.
func pause(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

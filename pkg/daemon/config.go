package daemon

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Load reads a configuration from the environment by its env tags, and from files: NAME_FILE
// names a file that holds the value of NAME. All problems are reported in one error, a line
// each, naming the variable. A configuration with a Validate method is asked at the end.
func Load[C any](environ []string) (C, error) {
	var config C
	var problems []error
	variables := env.ToMap(environ)
	for name, path := range variables {
		base, isFile := strings.CutSuffix(name, "_FILE")
		if !isFile || path == "" || !known(reflect.TypeOf(config), base) {
			continue
		}
		if _, both := variables[base]; both {
			problems = append(problems, fmt.Errorf("%s and %s are both set: give one of them", base, name))
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			problems = append(problems, fmt.Errorf("%s cannot be read: %w", name, err))
			continue
		}
		variables[base] = strings.TrimSpace(string(content))
	}
	if err := env.ParseWithOptions(&config, env.Options{Environment: variables}); err != nil {
		var all env.AggregateError
		if !errors.As(err, &all) {
			return config, fmt.Errorf("read the configuration: %w", err)
		}
		for _, err := range all.Errors {
			problems = append(problems, explain(reflect.TypeOf(config), err))
		}
	}
	if v, ok := any(config).(interface{ Validate() []error }); ok {
		problems = append(problems, unreported(problems, v.Validate())...)
	}
	if len(problems) == 0 {
		return config, nil
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	noun := "problems"
	if len(problems) == 1 {
		noun = "problem"
	}
	return config, fmt.Errorf("the configuration has %d %s:\n  %w", len(problems), noun, joined(problems))
}

// unreported leaves out the problems of variables that have one already: what could not be read
// is not within its range either.
func unreported(known, more []error) []error {
	variable := func(err error) string {
		name, _, _ := strings.Cut(err.Error(), " ")
		return name
	}
	return slices.DeleteFunc(more, func(err error) bool {
		return slices.ContainsFunc(known, func(k error) bool { return variable(k) == variable(err) })
	})
}

// joined prints errors as an indented list; errors.Join would not indent.
type joined []error

func (j joined) Error() string {
	lines := make([]string, len(j))
	for i, err := range j {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n  ")
}

func (j joined) Unwrap() []error { return j }

// explain names the variable where the library names the struct's field, and drops the value:
// it could be a secret.
func explain(config reflect.Type, err error) error {
	var notSet env.VarIsNotSetError
	var empty env.EmptyVarError
	var parse env.ParseError
	switch {
	case errors.As(err, &notSet):
		return fmt.Errorf("%s is not set", notSet.Key)
	case errors.As(err, &empty):
		return fmt.Errorf("%s is empty", empty.Key)
	case errors.As(err, &parse):
		return fmt.Errorf("%s %s", variable(config, parse.Name), expectation(parse))
	}
	return err
}

// expectation says what a variable should look like. Our own types explain themselves; for
// the others the parser's text would quote the value.
func expectation(err env.ParseError) string {
	if reflect.PointerTo(err.Type).Implements(reflect.TypeFor[interface{ UnmarshalText([]byte) error }]()) && err.Type.PkgPath() != "log/slog" {
		return err.Err.Error()
	}
	switch {
	case err.Type.String() == "time.Duration":
		return "must be a duration such as 10s"
	case err.Type.Kind() == reflect.Bool:
		return "must be true or false"
	case err.Type.Kind() >= reflect.Int && err.Type.Kind() <= reflect.Uint64 && err.Type.PkgPath() == "":
		return "must be a whole number"
	case err.Type.PkgPath() == "log/slog":
		return "must be debug, info, warn or error"
	}
	return "cannot be read as " + err.Type.String()
}

func variable(config reflect.Type, field string) string {
	for _, f := range reflect.VisibleFields(config) {
		if f.Name == field {
			name, _, _ := strings.Cut(f.Tag.Get("env"), ",")
			return name
		}
	}
	return field
}

func known(config reflect.Type, name string) bool {
	for _, f := range reflect.VisibleFields(config) {
		if tag, _, _ := strings.Cut(f.Tag.Get("env"), ","); tag == name {
			return true
		}
	}
	return false
}

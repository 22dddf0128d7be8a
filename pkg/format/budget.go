package format

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/itchyny/gojq"
)

// budget is what one rendering may still use. It is the context of jq's machine, which asks for
// Done before each of its steps, and the value of a variable that the meters in the expression
// read. Once it is exceeded the machine ends, whatever the expression tries to catch.
type budget struct {
	context.Context
	steps    int
	made     int // bytes
	exceeded error
}

func newBudget(ctx context.Context) *budget {
	return &budget{Context: ctx, steps: maxSteps, made: maxMade}
}

var closed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// Done counts a step.
func (b *budget) Done() <-chan struct{} {
	if b.steps--; b.steps < 0 {
		_ = b.exceed("it takes more than %d steps", maxSteps)
	}
	if b.exceeded != nil {
		return closed
	}
	return b.Context.Done()
}

// Err says why there is no further step.
func (b *budget) Err() error {
	if b.exceeded != nil {
		return b.exceeded
	}
	return b.Context.Err()
}

func (b *budget) exceed(format string, arguments ...any) error {
	if b.exceeded == nil {
		b.exceeded = fmt.Errorf(format, arguments...)
	}
	return b.exceeded
}

func (b *budget) spend(bytes int) error {
	if b.made -= bytes; b.made < 0 {
		return b.exceed("its values need more than %d bytes together", maxMade)
	}
	return nil
}

// charge spends what a value weighs.
func (b *budget) charge(v any) error {
	weight, err := weigh(v, maxDepth, maxValue)
	if err != nil {
		return b.exceed("%w", err)
	}
	return b.spend(weight)
}

var (
	errLarge  = fmt.Errorf("a value has more than %d bytes", maxValue)
	errDeep   = fmt.Errorf("a value is nested more than %d levels deep", maxDepth)
	errNumber = errors.New("a number has too many digits")
)

// Bytes of memory besides those of texts. jq's values share their parts, but they are weighed as if
// they did not: written out, a value of 60 shared pairs has 2⁶⁰ parts.
const (
	elementWeight  = 24
	propertyWeight = 64
)

// weigh is about how many bytes a value has, in time proportional to the most it may have.
func weigh(v any, depth, most int) (int, error) {
	weight := 0
	switch v := v.(type) {
	case string:
		weight = len(v)
	case json.Number:
		weight = len(v)
	case *big.Int:
		if v.BitLen() > 1024 {
			return 0, errNumber
		}
	case []any:
		weight = elementWeight * len(v)
		if depth == 0 {
			return 0, errDeep
		}
		for _, element := range v {
			if weight > most {
				break
			}
			inner, err := weigh(element, depth-1, most-weight)
			if err != nil {
				return 0, err
			}
			weight += inner
		}
	case map[string]any:
		weight = propertyWeight * len(v)
		if depth == 0 {
			return 0, errDeep
		}
		for name, property := range v {
			if weight += len(name); weight > most {
				break
			}
			inner, err := weigh(property, depth-1, most-weight)
			if err != nil {
				return 0, err
			}
			weight += inner
		}
	}
	if weight > most {
		return 0, errLarge
	}
	return weight, nil
}

// The variable and the functions that guard puts into an expression. An owner cannot name them:
// every name in an expression is known to be a function or a variable of its own, or listed.
const budgetVariable = "$__budget"

// meters are the functions that guard puts into an expression. Those that return their input leave
// paths as they are, so that they may stand on the left of an assignment.
var meters = []gojq.CompilerOption{
	meter("__charge", 0, func(b *budget, v any, _ []any) error { return b.charge(v) }),
	// What .[] needs for a value's elements, while it is at them.
	meter("__spread", 0, func(b *budget, v any, _ []any) error {
		switch v := v.(type) {
		case []any:
			return b.spend(2 * elementWeight * len(v))
		case map[string]any:
			return b.spend(2 * elementWeight * len(v))
		}
		return nil
	}),
	// What a call or an inner expression of so many parts needs for its variables.
	meter("__enter", 1, func(b *budget, _ any, arguments []any) error {
		parts, _ := arguments[0].(int)
		return b.spend(elementWeight * parts)
	}),
	meter("__index", 0, func(_ *budget, v any, _ []any) error {
		if index, ok := gojq.ToFloat64(v); ok && index > maxIndex {
			return fmt.Errorf("an index of a list may be at most %d", maxIndex)
		}
		return nil
	}),
	// A product of both sizes: comparing every element with every other.
	meter("__pairs", 2, func(b *budget, _ any, arguments []any) error {
		left, right := arguments[0], arguments[1]
		if !sized(left) || !sized(right) {
			return nil
		}
		n, err := weigh(left, maxDepth, maxValue)
		if err != nil {
			return b.exceed("%w", err)
		}
		m, err := weigh(right, maxDepth, maxValue)
		if err != nil {
			return b.exceed("%w", err)
		}
		return b.spend(n * m / 64)
	}),
	meter("__repeat", 2, func(b *budget, _ any, arguments []any) error {
		text, times := arguments[0], arguments[1]
		if _, isText := text.(string); !isText {
			text, times = times, text
		}
		s, isText := text.(string)
		n, isNumber := gojq.ToFloat64(times)
		if isText && isNumber && float64(len(s))*n > maxValue {
			return b.exceed("%w", errLarge)
		}
		return nil
	}),
	meter("__digits", 0, func(_ *budget, v any, _ []any) error {
		if s, isText := v.(string); isText && len(s) > 100 {
			return errNumber
		}
		return nil
	}),
	// A regular expression of so many instructions is tried at every byte of the text, and where all
	// matches are looked for, each can look at the whole rest.
	meter("__match", 1, func(b *budget, v any, arguments []any) error { return b.match(v, arguments[0], 1) }),
	meter("__matchall", 1, func(b *budget, v any, arguments []any) error { return b.match(v, arguments[0], maxMatched) }),
	gojq.WithFunction("__join", 2, 2, func(v any, arguments []any) any {
		text, err := join(arguments[0].(*budget), v, arguments[1])
		if err != nil {
			return err
		}
		return text
	}),
}

func (b *budget) match(v, instructions any, times int) error {
	s, isText := v.(string)
	n, _ := instructions.(int)
	switch {
	case !isText:
		return nil
	case len(s) > maxMatched:
		return fmt.Errorf("regular expressions look at texts of at most %d bytes", maxMatched)
	}
	return b.spend(n * len(s) * max(1, min(times, len(s)/8)))
}

func sized(v any) bool {
	switch v.(type) {
	case string, []any, map[string]any:
		return true
	}
	return false
}

// meter is a function that returns its input, or an error.
func meter(name string, arguments int, f func(*budget, any, []any) error) gojq.CompilerOption {
	return gojq.WithFunction(name, arguments+1, arguments+1, func(v any, given []any) any {
		if err := f(given[0].(*budget), v, given[1:]); err != nil {
			return err
		}
		return v
	})
}

// join is jq's, which would repeat a long separator for every element of a long list.
func join(b *budget, list, separator any) (string, error) {
	elements, isList := list.([]any)
	between, isText := separator.(string)
	if !isList || !isText && len(elements) > 1 {
		return "", errors.New("join needs a list and a text to put between its elements")
	}
	if len(elements)*len(between) > maxValue {
		return "", b.exceed("%w", errLarge)
	}
	var joined strings.Builder
	for i, element := range elements {
		if i > 0 {
			joined.WriteString(between)
		}
		switch element := element.(type) {
		case nil:
		case string:
			joined.WriteString(element)
		case []any, map[string]any:
			return "", errors.New("join needs a list of texts and numbers, without lists and objects in it")
		default:
			text, err := gojq.Marshal(element)
			if err != nil {
				return "", err
			}
			joined.Write(text)
		}
		if joined.Len() > maxValue {
			return "", b.exceed("%w", errLarge)
		}
	}
	return joined.String(), nil
}

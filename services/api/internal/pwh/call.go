package pwh

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	tries         = 4
	firstWait     = 500 * time.Millisecond // doubled with each try, where the api says nothing
	longestWait   = 30 * time.Second
	largestAnswer = 64 << 20
)

// caller sends requests with the key, and again if the api asks for that. POSTs that change
// something carry an Idempotency-Key, so none of them is obeyed twice.
type caller struct {
	session *session
	key     string
	http    *http.Client
}

// Do implements client.HttpRequestDoer.
func (c *caller) Do(r *http.Request) (*http.Response, error) {
	if c.key != "" {
		r.Header.Set("Authorization", "Bearer "+c.key)
	}
	r.Header.Set("User-Agent", "pwh")
	for try := 1; ; try++ {
		response, err := c.http.Do(r) //nolint:gosec // the address is the user's own choice
		if failed := new(url.Error); errors.As(err, &failed) && r.Context().Err() == nil {
			return nil, fmt.Errorf("the api at %s cannot be reached (%w): start it, or give its address as --url", c.session.URL, failed.Err)
		}
		if err != nil {
			return nil, err
		}
		wait, asked := askedToWait(response, try)
		if !asked || try == tries || wait > longestWait {
			return response, nil
		}
		_ = response.Body.Close()
		c.session.say("The api answered %s; it is asked again in %s.", response.Status, wait)
		if !pause(r.Context(), wait) {
			return nil, r.Context().Err()
		}
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
	}
}

// askedToWait tells whether a request may be sent again, and when. After a 503 a deletion might have been
// done, and would not be found again.
func askedToWait(response *http.Response, try int) (time.Duration, bool) {
	switch {
	case response.StatusCode == http.StatusTooManyRequests:
	case response.StatusCode == http.StatusServiceUnavailable && response.Request.Method != http.MethodDelete:
	default:
		return 0, false
	}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds >= 0 {
		return time.Duration(seconds) * time.Second, true
	}
	return firstWait << (try - 1), true
}

// onceKey is an Idempotency-Key.
func onceKey() *string { return new(rand.Text()) }

// answer is what the api answered: what it says, and the JSON that it is.
type answer[T any] struct {
	value T
	raw   []byte
}

// read reads an answer; an answer without content, of an operation that has none, is a struct{}.
func read[T any](response *http.Response, err error) (a answer[T], _ error) {
	if err != nil {
		return a, err
	}
	defer response.Body.Close()
	if a.raw, err = io.ReadAll(io.LimitReader(response.Body, largestAnswer)); err != nil {
		return a, fmt.Errorf("the api's answer broke off (%w): try again", err)
	}
	a.raw = bytes.TrimSpace(a.raw)
	if response.StatusCode >= http.StatusMultipleChoices {
		return a, refused(response, a.raw)
	}
	if response.StatusCode == http.StatusNoContent {
		return a, nil
	}
	if json.Unmarshal(a.raw, &a.value) != nil {
		return a, notTheAPI(response)
	}
	return a, nil
}

func notTheAPI(response *http.Response) error {
	return &refusal{status: response.StatusCode, Sentence: fmt.Sprintf(
		"%s answered %s with something that is not Plausible Webhooks' api: check --url or $PWH_URL.", response.Request.URL.Host, response.Status)}
}

// refusal is an answer that is not a success.
type refusal struct {
	status   int
	raw      []byte // nil: it is not the api's
	Sentence string `json:"error"`
	Problems []struct {
		Field   string `json:"field"`
		Message string `json:"message"`
	} `json:"errors"`
}

// refused reads such an answer; every error of the api has the same body.
func refused(response *http.Response, raw []byte) error {
	r := &refusal{status: response.StatusCode, raw: raw}
	if json.Unmarshal(raw, r) != nil || r.Sentence == "" {
		return notTheAPI(response)
	}
	return r
}

func (r *refusal) Error() string { return r.Sentence }

// remedies are what to do about the answers that do not say it themselves.
var remedies = map[int]string{
	http.StatusUnauthorized: "check $PWH_API_KEY or --key-file",
	http.StatusNotFound:     "check the ids and --site; pwh sites and pwh webhooks list what there is",
}

func (r *refusal) print(to *output) {
	sentence := clean(r.Sentence)
	if remedy, known := remedies[r.status]; known && r.raw != nil {
		sentence = strings.TrimSuffix(sentence, ".") + ": " + remedy + "."
	}
	if len(r.Problems) < 2 {
		to.printf("pwh: %s\n", sentence)
		return
	}
	to.printf("pwh: the api refused this for %d reasons:\n", len(r.Problems))
	for _, p := range r.Problems {
		to.printf("  %s\n", clean(strings.TrimPrefix(p.Field+": "+p.Message, ": ")))
	}
}

// refusedWith tells whether the api answered so.
func refusedWith(err error, statuses ...int) bool {
	r := new(refusal)
	return errors.As(err, &r) && slices.Contains(statuses, r.status)
}

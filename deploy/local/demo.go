package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/deploy/local/traffic"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/plausible"
)

// client does over REST what a new user would do, with the demo key.
type client struct {
	base string // of the demo site's webhooks
	key  string
}

func newClient(api string, demo plausible.Demo) client {
	return client{base: api + "/api/sites/" + url.PathEscape(demo.Domain) + "/webhooks", key: demo.OwnerKey}
}

type webhook struct {
	ID     string `json:"id"`
	URL    string `json:"url"`
	Secret string `json:"secret"`
}

// ensureDemo makes sure that there is a webhook that points to the receiver and that the
// receiver knows its secret. What the user made of an existing one stays as it is.
func ensureDemo(ctx context.Context, c client, r *receiver, address string, goals plausible.DemoGoals) (string, error) {
	target := address + demoPath
	if id := r.demoWebhook(); id != "" {
		var known webhook
		status, err := c.call(ctx, http.MethodGet, "/"+url.PathEscape(id), nil, &known)
		switch {
		case err != nil:
			return "", err
		case status == http.StatusOK && known.URL == target:
			return id, nil
		case status == http.StatusOK: // the receiver has another port this time
			return id, c.expect(ctx, http.StatusOK, http.MethodPatch, "/"+url.PathEscape(id), map[string]any{"url": target}, nil)
		}
	}
	// A webhook of that URL whose secret is lost: another one beside it would send all twice.
	var list struct{ Webhooks []webhook }
	if err := c.expect(ctx, http.StatusOK, http.MethodGet, "?limit=100", nil, &list); err != nil {
		return "", err
	}
	for _, existing := range list.Webhooks {
		if existing.URL == target {
			return existing.ID, r.learn(demoPath, "", existing.ID)
		}
	}
	var created webhook
	if err := c.expect(ctx, http.StatusCreated, http.MethodPost, "", demoWebhook(target, goals), &created); err != nil {
		return "", err
	}
	return created.ID, r.learn(demoPath, created.Secret, created.ID)
}

func demoWebhook(target string, goals plausible.DemoGoals) map[string]any {
	return map[string]any{
		"url":         target,
		"description": "The receiver of the local stack",
		"triggers": []map[string]any{
			{
				"type": "goal_achieved", "name": "Every sign-up",
				"config": map[string]any{"goal": map[string]any{"goal_id": goals.Signup}},
			},
			{
				"type": "visitor_spike", "name": "Front page of Hacker News", "notify_resolved": true,
				"config": map[string]any{"threshold": traffic.SpikeThreshold, "window_seconds": int(traffic.SpikeWindow / time.Second)},
			},
			{
				"type": "goal_achieved", "name": "Ten sign-ups in half an hour",
				"config": map[string]any{
					"goal": map[string]any{"goal_id": goals.Signup}, "mode": "threshold", "threshold": 10, "window_seconds": 1800,
				},
			},
			{
				"type": "pageview_milestone", "name": "Every 500 page views", // two or three in an hour
				"config": map[string]any{"every": 500},
			},
			{
				"type": "new_source", "name": "Somebody new links to us", // pretended visitors have none; a replayed log has
				"config": map[string]any{"min_visitors": 10},
			},
		},
	}
}

func (r *receiver) demoWebhook() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.memory.WebhookID
}

// expect is call for requests that have only one good answer.
func (c client) expect(ctx context.Context, want int, method, path string, body, into any) error {
	status, err := c.call(ctx, method, path, body, into)
	if err == nil && status != want {
		err = fmt.Errorf("%s %s was answered with status %d", method, c.base+path, status)
	}
	return err
}

// call decodes a good answer. The status is for the caller to judge, but for a refusal that
// explains itself: that is the error.
func (c client) call(ctx context.Context, method, path string, body, into any) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			return 0, err
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, &content)
	if err != nil {
		return 0, err
	}
	request.Header.Set("Authorization", "Bearer "+c.key)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return 0, err
	}
	if response.StatusCode == http.StatusUnprocessableEntity {
		return response.StatusCode, refusalOf(text)
	}
	if response.StatusCode/100 == 2 && into != nil {
		if err := json.Unmarshal(text, into); err != nil {
			return response.StatusCode, fmt.Errorf("%s %s was answered with something else than JSON: %w", method, c.base+path, err)
		}
	}
	return response.StatusCode, nil
}

// refusal is the api's explanation why a body is not valid.
type refusal struct {
	Sentence string `json:"error"`
	Problems []struct {
		Field   string `json:"field"`
		Message string `json:"message"`
	} `json:"errors"`
}

func refusalOf(text []byte) error {
	var r refusal
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("status 422 without an explanation: %w", err)
	}
	return r
}

func (r refusal) Error() string {
	if len(r.Problems) == 0 {
		return r.Sentence
	}
	sentence := ""
	for i, p := range r.Problems {
		if i > 0 {
			sentence += "; "
		}
		sentence += p.Field + " " + p.Message
	}
	return sentence
}

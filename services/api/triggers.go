package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
)

// triggerView is a trigger as the contract shows it.
type triggerView struct {
	ID              string       `json:"id"`
	Type            trigger.Type `json:"type"`
	Name            string       `json:"name"`
	Enabled         bool         `json:"enabled"`
	Config          any          `json:"config"`
	Filters         any          `json:"filters"`
	CooldownSeconds int          `json:"cooldown_seconds"`
	NotifyResolved  bool         `json:"notify_resolved"`
	CreatedAt       time.Time    `json:"created_at"`
	UpdatedAt       time.Time    `json:"updated_at"`
	State           stateView    `json:"state"`
}

// stateView is where a trigger stands.
type stateView struct {
	Status          trigger.Status `json:"status"`
	Value           *float64       `json:"value"`
	Threshold       *float64       `json:"threshold"`
	Since           time.Time      `json:"since"`
	LastEvaluatedAt *time.Time     `json:"last_evaluated_at"`
	LastFiredAt     *time.Time     `json:"last_fired_at"`
	Explanation     string         `json:"explanation"`
}

func viewTrigger(t postgres.Trigger) triggerView {
	v := triggerView{
		ID: t.ID, Type: t.Type, Name: t.Name, Enabled: t.Enabled, Config: t.Config, Filters: t.Filters,
		CooldownSeconds: t.CooldownSeconds, NotifyResolved: t.NotifyResolved, CreatedAt: t.CreatedAt.UTC(), UpdatedAt: t.UpdatedAt.UTC(),
		// Not evaluated since it was made or changed.
		State: stateView{Status: trigger.StatusPending, Since: t.RevisedAt.UTC(), Explanation: "Not evaluated yet."},
	}
	if config := parseStored(t); config != nil { // in the order of its declaration; Postgres keeps none
		v.Config = config
	}
	if filters, known := storedFilters(t); known {
		v.Filters = filters
	}
	if s := t.State; s != nil {
		v.State = stateView{
			Status: s.Status, Value: s.Value, Threshold: s.Threshold, Since: s.Since.UTC(), LastEvaluatedAt: utc(&s.LastEvaluatedAt),
			LastFiredAt: utc(s.LastFiredAt), Explanation: s.Explanation,
		}
	}
	if !t.Enabled {
		v.State.Explanation = "The trigger is disabled: it is not evaluated."
	}
	return v
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	in := t.UTC()
	return &in
}

// parseStored is a stored config; nil if it cannot be read, as that of a newer version.
func parseStored(t postgres.Trigger) trigger.Config {
	config, problems := trigger.Parse(t.Type, t.Config)
	if len(problems) > 0 {
		return nil
	}
	return config
}

// storedFilters are the stored filters; not known are those of a newer version.
func storedFilters(t postgres.Trigger) (filters trigger.Filters, known bool) {
	filters, problems := trigger.ParseFilters(t.Filters)
	return filters, len(problems) == 0
}

func (a *api) listTriggers(c echo.Context, by access) error {
	id, err := pathID(c, "id")
	if err != nil {
		return err
	}
	var problems []strict.Problem
	page := readPage(c.QueryParams(), &problems)
	if err := invalid(problems); err != nil {
		return err
	}
	triggers, around, err := a.store.Triggers(c.Request().Context(), by.site.ID, id, page)
	if err != nil {
		return err
	}
	views := make([]triggerView, len(triggers))
	for i, t := range triggers {
		views[i] = viewTrigger(t)
	}
	return c.JSON(http.StatusOK, struct {
		Triggers []triggerView `json:"triggers"`
		Meta     meta          `json:"meta"`
	}{views, metaOf(page, around)})
}

func (a *api) showTrigger(c echo.Context, by access) error {
	webhookID, id, err := triggerPath(c)
	if err != nil {
		return err
	}
	t, err := a.store.Trigger(c.Request().Context(), by.site.ID, webhookID, id)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, viewTrigger(t))
}

func triggerPath(c echo.Context) (webhookID, id string, err error) {
	if webhookID, err = pathID(c, "id"); err != nil {
		return "", "", err
	}
	id, err = pathID(c, "trigger_id")
	return webhookID, id, err
}

// A change of one trigger is a change of its webhook: one way of writing, one lock.

func (a *api) createTrigger(c echo.Context, by access) error {
	webhookID, err := pathID(c, "id")
	if err != nil {
		return err
	}
	raw, err := readBody(c)
	if err != nil {
		return err
	}
	var problems []strict.Problem
	d := readTrigger("", raw, nil, creating, &problems)
	settled, err := a.settle(c, by, []triggerDocument{d}, nil, problems)
	if err != nil {
		return err
	}
	id := settled[0].ID
	w, changes, err := a.store.ChangeWebhook(c.Request().Context(), by.site.ID, webhookID, func(w postgres.Webhook) (postgres.Webhook, error) {
		if len(w.Triggers) >= maxTriggers {
			return w, conflict("The webhook already has %d triggers, which is the most it may have.", maxTriggers)
		}
		w.Triggers = append(slices.Clone(w.Triggers), settled...)
		return w, nil
	})
	if err != nil {
		return err
	}
	a.announceChanges(webhookID, changes)
	c.Response().Header().Set(echo.HeaderLocation, c.Request().URL.RawPath+"/"+id)
	return c.JSON(http.StatusCreated, viewTrigger(w.Triggers[indexOf(w.Triggers, id)]))
}

// indexOf is -1 if there is none.
func indexOf(triggers []postgres.Trigger, id string) int {
	return slices.IndexFunc(triggers, func(t postgres.Trigger) bool { return t.ID == id })
}

func (a *api) replaceTrigger(c echo.Context, by access) error {
	return a.saveTrigger(c, by, replacing)
}

func (a *api) patchTrigger(c echo.Context, by access) error {
	return a.saveTrigger(c, by, patching)
}

func (a *api) saveTrigger(c echo.Context, by access, p purpose) error {
	webhookID, id, err := triggerPath(c)
	if err != nil {
		return err
	}
	body, err := readBody(c)
	if err != nil {
		return err
	}
	w, changes, err := a.store.ChangeWebhook(c.Request().Context(), by.site.ID, webhookID, func(w postgres.Webhook) (postgres.Webhook, error) {
		at := indexOf(w.Triggers, id)
		if at < 0 {
			return w, errNotFound
		}
		raw, patch := body, json.RawMessage(nil)
		if p == patching {
			raw, patch = mergePatch(triggerBase(w.Triggers[at], body), body), body
		}
		var problems []strict.Problem
		d := readTrigger("", raw, patch, p, &problems)
		d.id = id
		settled, err := a.settle(c, by, []triggerDocument{d}, w.Triggers, problems)
		if err != nil {
			return w, err
		}
		w.Triggers = slices.Clone(w.Triggers)
		w.Triggers[at] = settled[0]
		return w, nil
	})
	if err != nil {
		return err
	}
	a.announceChanges(webhookID, changes)
	return c.JSON(http.StatusOK, viewTrigger(w.Triggers[indexOf(w.Triggers, id)]))
}

// triggerBase is what a patch is merged into: without the name, which may be one that is made
// of the config, and without the config where the patch names another type, whose config it
// cannot be.
func triggerBase(t postgres.Trigger, patch []byte) []byte {
	base := map[string]any{
		"type": t.Type, "enabled": t.Enabled, "config": t.Config, "filters": t.Filters,
		"cooldown_seconds": t.CooldownSeconds, "notify_resolved": t.NotifyResolved,
	}
	if typ, given := strict.Read("", patch, new([]strict.Problem)).Take("type"); given && string(typ) != string(mustMarshal(t.Type)) {
		delete(base, "config")
	}
	return mustMarshal(base)
}

func (a *api) removeTrigger(c echo.Context, by access) error {
	webhookID, id, err := triggerPath(c)
	if err != nil {
		return err
	}
	_, changes, err := a.store.ChangeWebhook(c.Request().Context(), by.site.ID, webhookID, func(w postgres.Webhook) (postgres.Webhook, error) {
		at := indexOf(w.Triggers, id)
		if at < 0 {
			return w, errNotFound
		}
		w.Triggers = slices.Delete(slices.Clone(w.Triggers), at, at+1)
		return w, nil
	})
	if err != nil {
		return err
	}
	a.announceChanges(webhookID, changes)
	return c.NoContent(http.StatusNoContent)
}

// settle makes the triggers that documents describe, in their order, where current are those of
// the webhook now. It finds what a body alone does not show: whether the goals exist, and how
// each differs from the trigger that it replaces. All problems found so far are reported with
// its own.
func (a *api) settle(c echo.Context, by access, documents []triggerDocument, current []postgres.Trigger, problems []strict.Problem) ([]postgres.Trigger, error) {
	goals, err := a.goals(c, documents, current)
	if err != nil {
		return nil, err
	}
	settled := make([]postgres.Trigger, len(documents))
	for i, d := range documents {
		old := postgres.Trigger{ID: newID("tr_"), Revision: 1}
		if d.id != "" {
			at := indexOf(current, d.id)
			if at < 0 {
				return nil, errNotFound
			}
			old = current[at]
		}
		if d.config == nil {
			continue // its problems are known
		}
		stored := parseStored(old)
		changed := old.Type != d.typ || stored == nil || string(mustMarshal(stored)) != string(mustMarshal(d.config))
		if id := goalID(d.config); changed && id != 0 && goals[id].SiteID != by.site.ID {
			problems = append(problems, strict.Problem{Field: strict.Join(d.path, "config.goal.goal_id"), Message: "is not a goal of this site"})
		}
		if filters, known := storedFilters(old); !known || filters != d.filters {
			changed = true
		}
		next := postgres.Trigger{
			ID: old.ID, Type: d.typ, Name: d.name, Enabled: d.enabled, Config: mustMarshal(d.config), Filters: mustMarshal(d.filters),
			CooldownSeconds: d.cooldownSeconds, NotifyResolved: d.notifyResolved, Revision: old.Revision,
		}
		switch {
		case d.keepName && old.Name != defaultName(stored, goals):
			next.Name = old.Name
		case d.name == "": // also where it was made of the config before: it follows that
			next.Name = defaultName(d.config, goals)
		}
		// Another condition starts anew, and so does one that was paused: what happened meanwhile
		// was not wanted, and its old state would find all of it at once.
		if d.id != "" && (changed || d.enabled && !old.Enabled) {
			next.Revision++
		}
		settled[i] = next
	}
	return settled, invalid(problems)
}

// goals reads Plausible's goals that documents name, and those that the replaced triggers name.
func (a *api) goals(c echo.Context, documents []triggerDocument, current []postgres.Trigger) (map[int64]plausible.Goal, error) {
	var ids []int64
	add := func(config trigger.Config) {
		if id := goalID(config); id != 0 {
			ids = append(ids, id)
		}
	}
	for _, d := range documents {
		add(d.config)
		if at := indexOf(current, d.id); at >= 0 {
			add(parseStored(current[at]))
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	goals, err := a.directory.Goals(c.Request().Context(), ids)
	if err != nil {
		return nil, plausibleAway(c, err)
	}
	return goals, nil
}

// goalID is the Plausible goal that a config names; 0: none.
func goalID(config trigger.Config) int64 {
	if goal := trigger.GoalOf(config); goal != nil {
		return goal.ID
	}
	return 0
}

// defaultName says what a trigger waits for: "Visitor spike: 100 in 5m", "Signup: every conversion".
func defaultName(config trigger.Config, goals map[int64]plausible.Goal) string {
	if config == nil {
		return ""
	}
	name := config.Title(goalName(trigger.GoalOf(config), goals))
	if runes := []rune(name); len(runes) > maxName { // of a long path
		name = string(runes[:maxName-1]) + "…"
	}
	return name
}

func goalName(g *trigger.Goal, goals map[int64]plausible.Goal) string {
	switch {
	case g == nil:
		return ""
	case g.EventName != "":
		return g.EventName
	case g.PagePath != "":
		return "Visit " + g.PagePath
	case goals[g.ID].DisplayName != "":
		return goals[g.ID].DisplayName
	}
	return fmt.Sprintf("Goal %d", g.ID)
}

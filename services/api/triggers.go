package api

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/plausible"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/strict"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/postgres"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

func viewTrigger(t postgres.Trigger) rest.Trigger {
	v := rest.Trigger{
		ID: t.ID, Type: t.Type, Name: t.Name, Enabled: t.Enabled, Config: t.Config, Filters: t.Filters,
		CooldownSeconds: t.CooldownSeconds, NotifyResolved: t.NotifyResolved, CreatedAt: t.CreatedAt.UTC(), UpdatedAt: t.UpdatedAt.UTC(),
		// Not evaluated since it was made or changed.
		State: rest.TriggerState{Status: trigger.StatusPending, Since: t.RevisedAt.UTC(), Explanation: "Not evaluated yet."},
	}
	if config := parseStored(t); config != nil { // in the order of its declaration; Postgres keeps none
		v.Config = config
	}
	if filters, known := storedFilters(t); known {
		v.Filters = filters
	}
	if s := t.State; s != nil {
		v.State = rest.TriggerState{
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

// sameConfig tells whether two triggers of a type wait for the same.
func sameConfig(one, other trigger.Config) bool {
	return string(mustMarshal(one)) == string(mustMarshal(other))
}

// storedFilters are the stored filters; not known are those of a newer version.
func storedFilters(t postgres.Trigger) (filters trigger.Filters, known bool) {
	filters, problems := trigger.ParseFilters(t.Filters)
	return filters, len(problems) == 0
}

// ListTriggers implements rest.StrictServerInterface.
func (a *api) ListTriggers(ctx context.Context, request rest.ListTriggersRequestObject) (rest.ListTriggersResponseObject, error) {
	by := callOf(ctx)
	var problems []strict.Problem
	page := ofOurs.page(request.Params.Limit, request.Params.After, request.Params.Before, &problems)
	if err := by.invalid(problems); err != nil {
		return nil, err
	}
	triggers, around, err := a.store.Triggers(ctx, by.site.ID, request.ID, page)
	if err != nil {
		return nil, err
	}
	return rest.ListTriggers200JSONResponse{Triggers: viewTriggers(triggers), Meta: ofOurs.meta(page, around)}, nil
}

func viewTriggers(triggers []postgres.Trigger) []rest.Trigger {
	views := make([]rest.Trigger, len(triggers))
	for i, t := range triggers {
		views[i] = viewTrigger(t)
	}
	return views
}

// ShowTrigger implements rest.StrictServerInterface.
func (a *api) ShowTrigger(ctx context.Context, request rest.ShowTriggerRequestObject) (rest.ShowTriggerResponseObject, error) {
	t, err := a.store.Trigger(ctx, callOf(ctx).site.ID, request.ID, request.TriggerID)
	if err != nil {
		return nil, err
	}
	return rest.ShowTrigger200JSONResponse{TriggerJSONResponse: answerTrigger(t)}, nil
}

func answerTrigger(t postgres.Trigger) rest.TriggerJSONResponse {
	return rest.TriggerJSONResponse{Body: viewTrigger(t), Headers: rest.TriggerResponseHeaders{ETag: triggerETag(t)}}
}

// triggerETag names a trigger's settings.
func triggerETag(t postgres.Trigger) string { return etagOf(t.ID, t.UpdatedAt.UnixMicro()) }

// A change of one trigger is a change of its webhook: one way of writing, one lock.

// CreateTrigger implements rest.StrictServerInterface.
func (a *api) CreateTrigger(ctx context.Context, request rest.CreateTriggerRequestObject) (rest.CreateTriggerResponseObject, error) {
	by := callOf(ctx)
	var problems []strict.Problem
	d := readTrigger("", *request.Body, nil, creating, &problems)
	settled, err := a.settle(ctx, by, []triggerDocument{d}, nil, problems)
	if err != nil {
		return nil, err
	}
	added, err := a.addTriggers(ctx, by, request.ID, func(postgres.Webhook) []postgres.Trigger { return settled })
	if err != nil {
		return nil, err
	}
	t := added[0]
	by.made = &t.ID
	return rest.CreateTrigger201JSONResponse{
		Body:    viewTrigger(t),
		Headers: rest.CreateTrigger201ResponseHeaders{Location: pathOf(request.SiteID, request.ID, "triggers", t.ID), ETag: triggerETag(t)},
	}, nil
}

// addTriggers adds to a webhook those that are chosen where it is known what it has, and returns them.
func (a *api) addTriggers(ctx context.Context, by *call, webhookID string, choose func(postgres.Webhook) []postgres.Trigger) ([]postgres.Trigger, error) {
	var chosen []postgres.Trigger
	w, changes, err := a.store.ChangeWebhook(ctx, by.site.ID, webhookID, func(w postgres.Webhook) (postgres.Webhook, error) {
		chosen = choose(w)
		if len(w.Triggers)+len(chosen) > maxTriggers {
			return w, conflict("The webhook already has %d triggers, of %d that it may have.", len(w.Triggers), maxTriggers)
		}
		w.Triggers = append(slices.Clone(w.Triggers), chosen...)
		return w, nil
	})
	if err != nil {
		return nil, err
	}
	by.afterCommit(func() { a.announceChanges(webhookID, changes) })
	added := make([]postgres.Trigger, len(chosen))
	for i, t := range chosen {
		added[i] = w.Triggers[indexOf(w.Triggers, t.ID)]
	}
	return added, nil
}

// indexOf is -1 if there is none.
func indexOf(triggers []postgres.Trigger, id string) int {
	return slices.IndexFunc(triggers, func(t postgres.Trigger) bool { return t.ID == id })
}

// ReplaceTrigger implements rest.StrictServerInterface.
func (a *api) ReplaceTrigger(ctx context.Context, request rest.ReplaceTriggerRequestObject) (rest.ReplaceTriggerResponseObject, error) {
	answer, err := a.saveTrigger(ctx, request.ID, request.TriggerID, replacing, request.Params.IfMatch)
	return rest.ReplaceTrigger200JSONResponse{TriggerJSONResponse: answer}, err
}

// PatchTrigger implements rest.StrictServerInterface.
func (a *api) PatchTrigger(ctx context.Context, request rest.PatchTriggerRequestObject) (rest.PatchTriggerResponseObject, error) {
	answer, err := a.saveTrigger(ctx, request.ID, request.TriggerID, patching, request.Params.IfMatch)
	return rest.PatchTrigger200JSONResponse{TriggerJSONResponse: answer}, err
}

func (a *api) saveTrigger(ctx context.Context, webhookID, id string, p purpose, ifMatch *string) (rest.TriggerJSONResponse, error) {
	by := callOf(ctx)
	w, err := a.changeTrigger(ctx, webhookID, id, ifMatch, func(w postgres.Webhook, at int) (postgres.Webhook, error) {
		raw, patch := by.body, json.RawMessage(nil)
		if p == patching {
			raw, patch = mergePatch(triggerBase(w.Triggers[at], by.body), by.body), by.body
		}
		var problems []strict.Problem
		d := readTrigger("", raw, patch, p, &problems)
		d.id = id
		settled, err := a.settle(ctx, by, []triggerDocument{d}, w.Triggers, problems)
		if err != nil {
			return w, err
		}
		w.Triggers = slices.Clone(w.Triggers)
		w.Triggers[at] = settled[0]
		return w, nil
	})
	if err != nil {
		return rest.TriggerJSONResponse{}, err
	}
	return answerTrigger(w.Triggers[indexOf(w.Triggers, id)]), nil
}

// changeTrigger changes a webhook, where one of its triggers is as ifMatch says.
func (a *api) changeTrigger(ctx context.Context, webhookID, id string, ifMatch *string, change func(w postgres.Webhook, at int) (postgres.Webhook, error)) (postgres.Webhook, error) {
	by := callOf(ctx)
	w, changes, err := a.store.ChangeWebhook(ctx, by.site.ID, webhookID, func(w postgres.Webhook) (postgres.Webhook, error) {
		at := indexOf(w.Triggers, id)
		if at < 0 {
			return w, errNotFound
		}
		if err := matches(ifMatch, triggerETag(w.Triggers[at])); err != nil {
			return w, err
		}
		return change(w, at)
	})
	if err != nil {
		return w, err
	}
	by.afterCommit(func() { a.announceChanges(webhookID, changes) })
	return w, nil
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

// RemoveTrigger implements rest.StrictServerInterface.
func (a *api) RemoveTrigger(ctx context.Context, request rest.RemoveTriggerRequestObject) (rest.RemoveTriggerResponseObject, error) {
	_, err := a.changeTrigger(ctx, request.ID, request.TriggerID, request.Params.IfMatch, func(w postgres.Webhook, at int) (postgres.Webhook, error) {
		w.Triggers = slices.Delete(slices.Clone(w.Triggers), at, at+1)
		return w, nil
	})
	if err != nil {
		return nil, err
	}
	return rest.RemoveTrigger204Response{}, nil
}

// settle makes the triggers that documents describe, in their order, where current are those of
// the webhook now. It finds what a body alone does not show: whether the goals exist, and how
// each differs from the trigger that it replaces. All problems found so far are reported with
// its own.
func (a *api) settle(ctx context.Context, by *call, documents []triggerDocument, current []postgres.Trigger, problems []strict.Problem) ([]postgres.Trigger, error) {
	goals, err := a.goals(ctx, documents, current)
	if err != nil {
		return nil, err
	}
	named, err := a.namedGoals(ctx, by, documents)
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
		changed := old.Type != d.typ || stored == nil || !sameConfig(stored, d.config)
		if id := goalID(d.config); changed && id != 0 && goals[id].SiteID != by.site.ID {
			problems = append(problems, strict.Problem{Field: strict.Join(d.path, "config.goal.goal_id"), Message: "is not a goal of this site"})
		}
		if filters, known := storedFilters(old); !known || filters != d.filters {
			changed = true
			_, refused := d.filters.WithGoals(named)
			for _, p := range refused {
				problems = append(problems, strict.Problem{Field: strict.Join(d.path, p.Field), Message: p.Message})
			}
		}
		next := postgres.Trigger{
			ID: old.ID, Type: d.typ, Name: d.name, Enabled: d.enabled, Config: mustMarshal(d.config), Filters: mustMarshal(d.filters),
			CooldownSeconds: d.cooldownSeconds, NotifyResolved: d.notifyResolved, Revision: old.Revision,
		}
		switch {
		case d.keepName && old.Name != defaultName(stored, goals):
			next.Name = old.Name
		case d.name == "", stored != nil && d.name == old.Name && d.name == defaultName(stored, goals):
			// What was made of the config follows it, also if it comes back with other changes.
			next.Name = defaultName(d.config, goals)
		}
		// Another condition starts anew, and so does one that was paused: what happened meanwhile
		// was not wanted, and its old state would find all of it at once.
		if d.id != "" && (changed || d.enabled && !old.Enabled) {
			next.Revision++
		}
		settled[i] = next
	}
	return settled, by.invalid(problems)
}

// goals reads Plausible's goals that documents name, and those that the replaced triggers name.
func (a *api) goals(ctx context.Context, documents []triggerDocument, current []postgres.Trigger) (map[int64]plausible.Goal, error) {
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
	goals, err := a.directory.Goals(ctx, ids)
	if err != nil {
		return nil, directoryError(ctx, err)
	}
	return goals, nil
}

// namedGoals reads the site's goals if filters name some.
func (a *api) namedGoals(ctx context.Context, by *call, documents []triggerDocument) ([]trigger.NamedGoal, error) {
	if !slices.ContainsFunc(documents, func(d triggerDocument) bool { return d.filters.NameGoals() }) {
		return nil, nil
	}
	goals, err := a.directory.GoalsBySite(ctx, []int64{by.site.ID})
	if err != nil {
		return nil, directoryError(ctx, err)
	}
	return plausible.Named(goals[by.site.ID]), nil
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

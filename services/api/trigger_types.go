package api

import (
	"context"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

// ListTriggerTypes implements rest.StrictServerInterface. It needs no key: a key opens sites, and this
// is no site's but documentation, the same for everybody, made of constants.
func (*api) ListTriggerTypes(context.Context, rest.ListTriggerTypesRequestObject) (rest.ListTriggerTypesResponseObject, error) {
	var types []trigger.Description
	for _, t := range trigger.Types() {
		types = append(types, trigger.Describe(t))
	}
	return rest.ListTriggerTypes200JSONResponse{TriggerTypes: types}, nil
}

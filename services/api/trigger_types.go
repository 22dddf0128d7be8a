package api

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

// listTriggerTypes shows what triggers there are. It needs no key: a key opens sites, and this is
// no site's but documentation, the same for everybody, made of constants.
func listTriggerTypes(c echo.Context) error {
	var types []trigger.Description
	for _, t := range trigger.Types() {
		types = append(types, trigger.Describe(t))
	}
	return c.JSON(http.StatusOK, struct {
		TriggerTypes []trigger.Description `json:"trigger_types"`
	}{types})
}

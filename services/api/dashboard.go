package api

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/ui"
)

const noDashboard = `This server was built without its dashboard.

"make ui" builds it, with Node.js, before the programs are built. Without it everything can be done over the
REST API: see ` + pathDocs + `.
`

// routeDashboard serves the dashboard: one page for all its views, and the files that it needs. Everything else
// that it shows comes from the API.
func (a *api) routeDashboard(e *echo.Echo) {
	files, built := ui.Open()
	if !built {
		a.log.Info(`this program was built without the dashboard: "make ui" builds it`)
		e.GET("/", func(c echo.Context) error { return c.String(http.StatusNotFound, noDashboard) })
		return
	}
	page := func(c echo.Context) error {
		header := c.Response().Header()
		header.Set(echo.HeaderContentSecurityPolicy, ui.Policy)
		header.Set(echo.HeaderReferrerPolicy, "no-referrer")
		header.Set("Cross-Origin-Opener-Policy", "same-origin")
		header.Set(echo.HeaderCacheControl, "no-cache") // it names the files of this very version
		files.ServeHTTP(c.Response(), ui.Page(c.Request()))
		return nil
	}
	file := func(c echo.Context) error {
		if !files.Found(c.Request()) {
			return echo.ErrNotFound
		}
		c.Response().Header().Set(echo.HeaderCacheControl, "public, max-age=31536000, immutable")
		files.ServeHTTP(c.Response(), c.Request())
		return nil
	}
	e.GET("/", page)
	e.GET("/sites/*", page)
	e.GET("/assets/*", file) // their names hold a hash of what they hold
}

package api

import (
	"net/http"

	"github.com/labstack/echo/v4"
	"github.com/swaggest/swgui"
	swagger "github.com/swaggest/swgui/v5emb"
)

// Where the document is, and the page to read and to try it.
const (
	pathOpenAPI = "/api/openapi.yaml"
	pathDocs    = "/api/docs"
)

// docsPolicy lets the page run what comes from here alone. Its own script stands within it.
const docsPolicy = "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func routeDocs(e *echo.Echo) {
	e.GET(pathOpenAPI, func(c echo.Context) error { return c.Blob(http.StatusOK, "application/yaml", openAPI) })
	page := swagger.NewHandlerWithConfig(swgui.Config{
		Title: "Plausible Webhooks API", SwaggerJSON: pathOpenAPI, BasePath: pathDocs + "/", HideCurl: false,
		SettingsUI: map[string]string{"persistAuthorization": "false", "tryItOutEnabled": "true", "displayRequestDuration": "true"},
	})
	show := func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderContentSecurityPolicy, docsPolicy)
		page.ServeHTTP(c.Response(), c.Request())
		return nil
	}
	e.GET(pathDocs, show)
	e.GET(pathDocs+"/*", show)
}

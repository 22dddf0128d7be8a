package api

import (
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/plausible-webhooks/plausible-webhooks/services/api/internal/rest"
)

// handler is every route: those of the document, and the document itself.
func (a *api) handler(o *observer) (http.Handler, error) {
	operations, err := readOpenAPI(openAPI)
	if err != nil {
		return nil, err
	}
	e := echo.New()
	e.HTTPErrorHandler = answerError
	e.Binder = bodies{}
	e.Pre(normalizePath, headAsGet)
	e.Use(o.observe, recoverPanic)
	if len(a.origins) > 0 {
		e.Use(middleware.CORSWithConfig(middleware.CORSConfig{
			AllowOrigins:  a.origins,
			AllowMethods:  []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete},
			AllowHeaders:  []string{echo.HeaderAuthorization, echo.HeaderContentType, headerIdempotencyKey, "If-Match", echo.HeaderXRequestID},
			ExposeHeaders: []string{echo.HeaderLocation, "ETag", headerReplayed, headerRateLimit, headerRatePolicy, echo.HeaderRetryAfter, echo.HeaderXRequestID},
			MaxAge:        24 * 60 * 60,
		}))
	}
	before := map[string][]echo.MiddlewareFunc{}
	for id, operation := range operations {
		bounded := withDeadline
		if operation.streams {
			bounded = withoutDeadline
		}
		before[id] = []echo.MiddlewareFunc{bounded, a.admit(operation), withBody}
		if operation.changes() {
			before[id] = append(before[id], a.inOneTransaction)
		}
	}
	rest.RegisterHandlersWithOptions(e, rest.NewStrictHandler(a, nil), rest.RegisterHandlersOptions{OperationMiddlewares: before})
	routeDocs(e)
	return e, nil
}

// normalizePath makes the router see the path as it was sent. A site's domain may hold an
// encoded slash (example.com%2Fblog), and the router unescapes nothing: with the raw path
// always set, whoever reads a parameter unescapes exactly once. A slash at the end means nothing.
func normalizePath(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		u := c.Request().URL
		u.RawPath = strings.TrimSuffix(u.EscapedPath(), "/")
		if u.RawPath == "" {
			u.RawPath = "/"
		}
		return next(c)
	}
}

// headAsGet lets HEAD go where GET goes. The server knows which it was, and sends no body.
func headAsGet(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if r := c.Request(); r.Method == http.MethodHead {
			get := r.WithContext(r.Context())
			get.Method = http.MethodGet
			c.SetRequest(get)
		}
		return next(c)
	}
}

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
	e.Pre(normalizePath)
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
	a.routeDashboard(e)
	return headAsGet(e), nil
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
func headAsGet(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			r = r.WithContext(r.Context())
			r.Method = http.MethodGet
		}
		next.ServeHTTP(w, r)
	})
}

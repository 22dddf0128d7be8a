package front

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"sort"
	"strings"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/andybalholm/brotli"
)

const (
	maxQuery = 64 << 20 // bytes of SQL, values and all
	maxField = 16 << 20 // bytes of one text field of a form
)

// request is what a client asks for, read to its end.
type request struct {
	query       string
	insert      *insertion
	rows        string // file with the insertion's rows
	database    string
	format      string
	id          string
	revision    uint64 // of the client's protocol; matters for the hello only
	compression string // of the answer: "", LZ4, ZSTD or gzip
	settings    []setting
	readonly    string
	params      []setting
	external    []external
	files       []string // to be removed when the request is done
}

type setting struct{ name, value string }

// external is a table sent along with a query.
type external struct{ name, structure, format, file string }

// notSettings are url parameters of the protocol; of the rest, each is a setting.
// Inserts are always synchronous here, which is more than asynchronous ones promise.
var notSettings = map[string]bool{
	"query": true, "database": true, "default_format": true, "query_id": true, "quota_key": true,
	"user": true, "password": true, "role": true, "client_protocol_version": true,
	"compress": true, "decompress": true, "network_compression_method": true, "network_zstd_compression_level": true,
	"buffer_size": true, "wait_end_of_query": true, "send_progress_in_http_headers": true,
	"http_headers_progress_interval_ms": true, "enable_http_compression": true, "stacktrace": true,
	"async_insert": true, "wait_for_async_insert": true, "readonly": true,
}

func (s *Server) read(r *http.Request) (q *request, err error) {
	u := r.URL.Query()
	q = &request{
		database: first(u.Get("database"), r.Header.Get("X-ClickHouse-Database")),
		format:   first(u.Get("default_format"), r.Header.Get("X-ClickHouse-Format"), "TabSeparated"),
		id:       u.Get("query_id"),
		readonly: u.Get("readonly"),
	}
	defer func() {
		if err != nil {
			q.discard()
		}
	}()
	if u.Has("session_id") {
		return q, errors.New("Code: 48. DB::Exception: Sessions are not supported over this HTTP interface. (NOT_IMPLEMENTED)")
	}
	if r.Method == http.MethodGet && q.readonly == "" {
		q.readonly = "2" // a GET reads, as with the real server
	}
	if _, err := fmt.Sscan(first(u.Get("client_protocol_version"), "0"), &q.revision); err != nil {
		return q, badArguments("client_protocol_version is not a number: %v", err)
	}
	if u.Get("compress") == "1" {
		q.compression = strings.ToUpper(first(u.Get("network_compression_method"), "LZ4"))
	} else if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") && u.Get("enable_http_compression") == "1" {
		q.compression = "gzip"
	}
	if q.compression != "" && q.compression != "LZ4" && q.compression != "ZSTD" && q.compression != "gzip" {
		return q, badArguments("compression %s is not supported, use LZ4, ZSTD or none", q.compression)
	}

	body, err := decoded(r, u)
	if err != nil {
		return q, err
	}
	text := u.Get("query")
	if kind, fields, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "multipart/form-data" {
		form := multipart.NewReader(body, fields["boundary"])
		if text, err = s.readForm(q, form, u, text); err != nil {
			return q, err
		}
		body = bytes.NewReader(nil)
	}
	q.readSettings(u)
	return q, s.readQuery(q, text, body)
}

// readQuery tells SQL from rows: SQL comes in the url, in the body or in both, and
// an INSERT's rows follow its FORMAT.
func (s *Server) readQuery(q *request, text string, body io.Reader) (err error) {
	if text != "" {
		if _, insert, err := examine(text); err == nil && insert != nil && insert.data == len(text) {
			q.insert = insert
			q.rows, err = s.store(q, body)
			return err
		}
	}
	rest, err := io.ReadAll(io.LimitReader(body, maxQuery+1))
	if err != nil {
		return fmt.Errorf("Code: 210. DB::NetException: Cannot read the request: %w. (NETWORK_ERROR)", err)
	}
	if len(rest) > maxQuery {
		return badArguments("the query is longer than %d bytes; send rows as the body of an INSERT given in the url", maxQuery)
	}
	if text != "" && len(rest) > 0 {
		text += "\n"
	}
	text += string(rest)
	q.query, q.insert, err = examine(text)
	if err != nil || q.insert == nil {
		return err
	}
	q.rows, err = s.store(q, strings.NewReader(text[q.insert.data:]))
	return err
}

// readForm takes external tables and text fields. A table may be a part with a file
// name or, as some clients send it, one without: its structure in the url tells.
func (s *Server) readForm(q *request, form *multipart.Reader, u url.Values, text string) (string, error) {
	for {
		part, err := form.NextRawPart()
		if errors.Is(err, io.EOF) {
			return text, nil
		}
		if err != nil {
			return "", badArguments("the form is broken: %v", err)
		}
		name := part.FormName()
		if structure := u.Get(name + "_structure"); structure != "" {
			file, err := s.store(q, part)
			if err != nil {
				return "", err
			}
			q.external = append(q.external, external{name, structure, first(u.Get(name+"_format"), "TabSeparated"), file})
			u.Del(name + "_structure")
			u.Del(name + "_format")
			continue
		}
		limit := int64(maxField)
		if name == "query" {
			limit = maxQuery
		}
		value, err := io.ReadAll(io.LimitReader(part, limit+1))
		if err != nil {
			return "", badArguments("the form is broken: %v", err)
		}
		if int64(len(value)) > limit {
			return "", badArguments("the form's field %s is longer than %d bytes", name, limit)
		}
		if name == "query" {
			text += string(value)
			continue
		}
		if part.FileName() != "" {
			return "", badArguments("external table %s has no %s_structure", name, name)
		}
		u.Set(name, string(value))
	}
}

func (q *request) readSettings(u url.Values) {
	for name, values := range u {
		value := values[len(values)-1]
		switch param, isParam := strings.CutPrefix(name, "param_"); {
		case isParam:
			q.params = append(q.params, setting{param, value})
		case !notSettings[name]:
			q.settings = append(q.settings, setting{name, value})
		}
	}
	sort.Slice(q.settings, func(i, j int) bool { return q.settings[i].name < q.settings[j].name })
}

// store keeps a stream in a file, because the engine takes rows from files only.
func (s *Server) store(q *request, from io.Reader) (string, error) {
	f, err := os.CreateTemp(s.incoming, "rows-*")
	if err != nil {
		return "", fmt.Errorf("keep rows: %w", err)
	}
	q.files = append(q.files, f.Name())
	if _, err := io.Copy(f, from); err != nil {
		f.Close()
		return "", fmt.Errorf("Code: 210. DB::NetException: Cannot read the rows: %w. (NETWORK_ERROR)", err)
	}
	return f.Name(), f.Close()
}

// discard removes the request's files.
func (q *request) discard() {
	for _, f := range q.files {
		_ = os.Remove(f) // what is left goes with the folder
	}
	q.files = nil
}

// decoded undoes both of a client's compressions of the body: the one of HTTP and
// ClickHouse's own, of blocks.
func decoded(r *http.Request, u url.Values) (io.Reader, error) {
	var body io.Reader = r.Body
	var err error
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		body, err = gzip.NewReader(body)
	case "deflate":
		body, err = zlib.NewReader(body)
	case "br":
		body = brotli.NewReader(body)
	default:
		return nil, badArguments("content encoding %s is not supported", encoding)
	}
	if err != nil {
		return nil, badArguments("the body is not %s: %v", r.Header.Get("Content-Encoding"), err)
	}
	if u.Get("decompress") == "1" {
		body = blocks{compress.NewReader(body)}
	}
	return body, nil
}

// blocks ends as readers do: the one of compressed blocks wraps io.EOF.
type blocks struct{ io.Reader }

func (b blocks) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return n, err
}

func badArguments(format string, args ...any) error {
	return fmt.Errorf("Code: 36. DB::Exception: %s. (BAD_ARGUMENTS)", fmt.Sprintf(format, args...))
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

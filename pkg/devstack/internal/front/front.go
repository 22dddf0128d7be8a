// Package front lets clients of a ClickHouse server use the engine as a library:
// it speaks the part of ClickHouse's HTTP interface that clickhouse-go, curl and
// Plausible's own driver need.
//
// Each request gets a session of its own in the engine, so settings, query
// parameters, the current database and external tables end with the request and
// never meet those of another, and requests run at the same time. Rows of an INSERT
// and of external tables go through files, the engine's only way in. A request whose
// client went away is killed in the engine.
//
// It is for local use and tests: any user and password will do, so it must be
// reachable from this machine only, and it refuses what a web page sends.
package front

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/ch-go/compress"
	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// atOnce bounds how many requests are in the engine at the same time; others wait.
const atOnce = 32

// long is when a request is worth a line in the log, with what it is doing.
const long = 15 * time.Second

// hello is clickhouse-go's first query on each connection. The client reads its
// answer in its own protocol revision, and the rest in the revision announced in it.
const hello = "SELECT displayName(), version(), revision(), timezone()"

// Server answers requests with an engine.
type Server struct {
	engine   Engine
	incoming string // folder for rows on their way in
	log      *slog.Logger
	version  string
	timezone string
	places   chan struct{}
	mark     atomic.Uint64
}

// New asks the engine for its version, which proves that it works. The folder
// incoming has to exist and belongs to the server.
func New(engine Engine, incoming string, log *slog.Logger) (*Server, error) {
	s := &Server{engine: engine, incoming: incoming, log: log, places: make(chan struct{}, atOnce)}
	session, err := engine.Open()
	if err != nil {
		return nil, err
	}
	defer session.Close()
	about, err := session.Run("SELECT version(), timezone()", "TabSeparated")
	if err != nil {
		return nil, fmt.Errorf("ask the engine for its version: %w", err)
	}
	s.version, s.timezone, _ = strings.Cut(strings.TrimSpace(string(about.Data)), "\t")
	return s, nil
}

// Version is the engine's.
func (s *Server) Version() string { return s.version }

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := fromHere(r); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	switch {
	case r.URL.Path == "/ping", r.URL.Path == "/replicas_status", r.URL.Path == "/" && r.Method == http.MethodGet && !r.URL.Query().Has("query"):
		fmt.Fprintln(w, "Ok.")
		return
	case r.URL.Path != "/":
		http.NotFound(w, r)
		return
	}
	q, err := s.read(r)
	if err != nil {
		s.fail(w, q, err)
		return
	}
	defer q.discard()
	result, err := s.answer(r.Context(), q)
	if err != nil {
		s.log.Debug("query failed", "query", q.query, "error", err)
		s.fail(w, q, err)
		return
	}
	s.succeed(w, q, result)
}

func (s *Server) answer(ctx context.Context, q *request) (Result, error) {
	if q.query == hello && q.format == "Native" {
		return s.greet(q.revision)
	}
	var doing atomic.Value // what takes so long, if it does
	doing.Store("wait for a place in the engine")
	defer time.AfterFunc(long, func() {
		s.log.Warn("a request takes long", "since", long, "doing", doing.Load(), "query", q.statement())
	}).Stop()
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	case <-ctx.Done():
		return Result{}, cancelled(ctx)
	}
	doing.Store("open a session")
	session, err := s.engine.Open()
	if err != nil {
		return Result{}, err
	}
	defer session.Close()

	mark := strconv.FormatUint(s.mark.Add(1), 10)
	done := make(chan struct{})
	defer close(done)
	defer context.AfterFunc(ctx, func() { s.kill(mark, done) })()

	for _, statement := range q.preparation(mark) {
		if ctx.Err() != nil {
			return Result{}, cancelled(ctx)
		}
		doing.Store(statement)
		if _, err := session.Run(statement, "Null"); err != nil {
			return Result{}, err
		}
	}
	doing.Store("the query")
	return session.Run(q.statement(), q.format)
}

// preparation is what has to be true in the session before the query runs. All that is set is set in one statement, as each
// costs 0.2 ms, and last: from then on the session may only read, and not change its settings. External tables are
// there by then; whose client goes away while they are read is not killed, but goes no further.
func (q *request) preparation(mark string) []string {
	var do, settings []string
	if q.database != "" {
		do = append(do, "USE "+identifier(q.database))
	}
	for _, e := range q.external {
		do = append(do,
			"CREATE TEMPORARY TABLE "+identifier(e.name)+" ("+e.structure+") ENGINE = Memory",
			"INSERT INTO "+identifier(e.name)+" FROM INFILE "+literal(e.file)+" FORMAT "+identifier(e.format))
	}
	set := func(name, value string) {
		settings = append(settings, identifier(name)+" = "+literal(value))
	}
	set(markSetting, mark)
	for _, p := range q.params {
		set("param_"+p.name, p.value)
	}
	for _, s := range q.settings {
		set(s.name, s.value)
	}
	if q.readonly != "" && q.readonly != "0" {
		set("readonly", q.readonly)
	}
	return append(do, "SET "+strings.Join(settings, ", "))
}

func (q *request) statement() string {
	text := q.query
	if q.insert != nil {
		text = q.insert.head + " FROM INFILE " + literal(q.rows) + " " + q.insert.tail
	}
	// The engine takes C strings. Where a NUL may stand, within quotes, \0 means it.
	return strings.ReplaceAll(text, "\x00", `\0`)
}

// markSetting carries a request's number into the engine's list of what is running,
// so that it can be killed there. The setting has no effect of its own.
const markSetting = "metrics_perf_events_list"

// kill ends a request in the engine. It repeats itself until the request is done,
// for the request may be between two of its statements.
func (s *Server) kill(mark string, done <-chan struct{}) {
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		if session, err := s.engine.Open(); err == nil {
			_, err = session.Run("KILL QUERY WHERE Settings["+literal(markSetting)+"] = "+literal(mark)+" ASYNC", "Null")
			session.Close()
			if err != nil {
				s.log.Warn("cannot kill a query whose client went away", "error", err)
			}
		}
		select {
		case <-done:
			return
		case <-again.C:
		}
	}
}

// greet answers the hello in the client's revision and announces revision 0, the
// one of blocks in files, which the engine's Native format is in.
func (s *Server) greet(revision uint64) (Result, error) {
	var b proto.Block
	b.ServerContext = &column.ServerContext{Timezone: time.UTC}
	for _, c := range []struct {
		name string
		kind column.Type
	}{{"displayName()", "String"}, {"version()", "String"}, {"revision()", "UInt32"}, {"timezone()", "String"}} {
		if err := b.AddColumn(c.name, c.kind); err != nil {
			return Result{}, fmt.Errorf("greet the client: %w", err)
		}
	}
	if err := b.Append("clickhouse-front", s.version, uint32(0), s.timezone); err != nil {
		return Result{}, fmt.Errorf("greet the client: %w", err)
	}
	var buf chproto.Buffer
	if err := b.Encode(&buf, revision); err != nil {
		return Result{}, fmt.Errorf("greet the client: %w", err)
	}
	return Result{Data: buf.Buf, Rows: 1}, nil
}

func (s *Server) succeed(w http.ResponseWriter, q *request, result Result) {
	s.describe(w, q)
	w.Header().Set("X-ClickHouse-Format", q.format)
	w.Header().Set("X-ClickHouse-Summary", fmt.Sprintf(`{"read_rows":"%d","read_bytes":"%d","elapsed_ns":"%d"}`,
		result.Rows, result.Bytes, result.ElapsedNS))
	w.Header().Set("Content-Type", contentType(q.format))
	s.write(w, q, http.StatusOK, result.Data)
}

// exceptionCode finds the number in an error as ClickHouse spells it.
var exceptionCode = regexp.MustCompile(`^Code: (\d+)\. `)

// unknownException is ClickHouse's code for an error that has none.
const unknownException = "1002"

func (s *Server) fail(w http.ResponseWriter, q *request, err error) {
	s.describe(w, q)
	code, text := unknownException, err.Error()
	if m := exceptionCode.FindStringSubmatch(text); m != nil {
		code = m[1]
		// The engine puts some of its errors into another of the same code.
		repeated := m[0] + "DB::Exception: "
		for strings.HasPrefix(text, repeated+m[0]) {
			text = strings.TrimPrefix(text, repeated)
		}
	} else {
		text = "Code: " + code + ". DB::Exception: " + text + ". (UNKNOWN_EXCEPTION)"
	}
	w.Header().Set("X-ClickHouse-Exception-Code", code)
	w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
	s.write(w, q, status(code), []byte(text+" (version "+s.version+")\n"))
}

func (s *Server) describe(w http.ResponseWriter, q *request) {
	w.Header().Set("X-ClickHouse-Server-Display-Name", "clickhouse-front")
	w.Header().Set("X-ClickHouse-Timezone", s.timezone)
	if q != nil && q.id != "" {
		w.Header().Set("X-ClickHouse-Query-Id", q.id)
	}
}

// blockSize is how many bytes one compressed block holds at most, the server's own.
const blockSize = 1 << 20

func (s *Server) write(w http.ResponseWriter, q *request, code int, data []byte) {
	var err error
	switch q.compression {
	case "LZ4", "ZSTD":
		method := compress.LZ4
		if q.compression == "ZSTD" {
			method = compress.ZSTD
		}
		w.WriteHeader(code)
		c := compress.NewWriter(compress.LevelZero, method)
		for len(data) > 0 && err == nil {
			n := min(len(data), blockSize)
			if err = c.Compress(data[:n]); err == nil {
				_, err = w.Write(c.Data)
			}
			data = data[n:]
		}
	case "gzip":
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(code)
		z := gzip.NewWriter(w)
		_, err = z.Write(data)
		err = errors.Join(err, z.Close())
	default:
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.WriteHeader(code)
		_, err = w.Write(data)
	}
	if err != nil {
		s.log.Debug("the client left before its answer", "error", err)
	}
}

// status is the HTTP status that goes with an error of the engine.
func status(code string) int {
	switch code {
	case "60", "81", "46", "47", "16", "115": // a table, database, function, name, column or setting is unknown
		return http.StatusNotFound
	case "36", "62", "6", "27", "43", "53", "456", "457": // arguments, syntax, values, types, query parameters
		return http.StatusBadRequest
	case "48":
		return http.StatusNotImplemented
	case "164":
		return http.StatusForbidden
	}
	return http.StatusInternalServerError
}

func contentType(format string) string {
	switch {
	case strings.HasPrefix(format, "JSONEachRow"):
		return "application/x-ndjson; charset=UTF-8"
	case strings.HasPrefix(format, "JSON"):
		return "application/json; charset=UTF-8"
	case strings.HasPrefix(format, "CSV"):
		return "text/csv; charset=UTF-8"
	case strings.HasPrefix(format, "TabSeparated"), strings.HasPrefix(format, "TSV"):
		return "text/tab-separated-values; charset=UTF-8"
	}
	return "application/octet-stream"
}

func cancelled(ctx context.Context) error {
	return fmt.Errorf("Code: 394. DB::Exception: The client went away: %w. (QUERY_WAS_CANCELLED)", context.Cause(ctx))
}

// fromHere keeps web pages out: a browser names the page's origin, or, when a
// foreign name was pointed at this machine, that name as the host.
func fromHere(r *http.Request) error {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("this server is for its own machine, not for the host name %q", host)
	}
	if r.Header.Get("Origin") != "" {
		return errors.New("this server does not answer web pages")
	}
	return nil
}

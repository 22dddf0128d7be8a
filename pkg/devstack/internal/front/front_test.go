// What these tests look at: an unmodified clickhouse-go and plain HTTP, against the
// front as a process, built from this source, with the real engine.
package front_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
)

func TestMain(m *testing.M) {
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, "build clickhouse-front from this source:", err)
		os.Exit(1)
	}
	devstacktest.Main(m)
}

// build makes this source the front of the tests, beside the engines installed.
func build() error {
	installed := os.Getenv("ENGINES_DIR")
	if installed == "" {
		installed = "../../../../.engines"
	}
	installed, err := filepath.Abs(installed)
	if err != nil {
		return err
	}
	// The folder is that of the package under test: git ignores what is in it.
	fresh := filepath.Join(installed, "front-under-test")
	if err := os.MkdirAll(filepath.Join(fresh, "bin"), 0o755); err != nil {
		return err
	}
	if err := os.Symlink("../node_modules", filepath.Join(fresh, "node_modules")); err != nil && !os.IsExist(err) {
		return err
	}
	cmd := exec.Command("go", "build", "-o", filepath.Join(fresh, "bin", "clickhouse-front"), "../../cmd/clickhouse-front")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return os.Setenv("ENGINES_DIR", fresh)
}

func open(t testing.TB, address string, change ...func(*clickhouse.Options)) driver.Conn {
	t.Helper()
	options, err := clickhouse.ParseDSN(address)
	require.NoError(t, err)
	require.Equal(t, clickhouse.HTTP, options.Protocol)
	for _, c := range change {
		c(options)
	}
	conn, err := clickhouse.Open(options)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func exec1(t testing.TB, conn driver.Conn, statement string) {
	t.Helper()
	require.NoError(t, conn.Exec(context.Background(), statement))
}

func scan[T any](t testing.TB, ctx context.Context, conn driver.Conn, query string, args ...any) (v T) {
	t.Helper()
	require.NoError(t, conn.QueryRow(ctx, query, args...).Scan(&v))
	return v
}

func requireCode(t testing.TB, err error, code int32) {
	t.Helper()
	var exception *clickhouse.Exception
	require.ErrorAs(t, err, &exception)
	require.Equal(t, code, exception.Code, err.Error())
}

func TestServerIsIntroduced(t *testing.T) {
	conn := open(t, devstacktest.ClickHouse(t))
	require.NoError(t, conn.Ping(context.Background()))
	version, err := conn.ServerVersion()
	require.NoError(t, err)
	require.GreaterOrEqual(t, version.Version.Major, uint64(23))
	require.Equal(t, "UTC", version.Timezone.String())
}

func TestQueryParameters(t *testing.T) {
	conn := open(t, devstacktest.ClickHouse(t))
	ctx := context.Background()
	text := "it's a \\ tab\t line\n nul\x00 \"quoted\" `x` {y:Int8} ; é 日本"
	require.Equal(t, text, scan[string](t, ctx, conn, "SELECT {x:String}", clickhouse.Named("x", text)))
	require.Equal(t, text, scan[string](t, ctx, conn, "SELECT ?", text), "bound by the client into the query's text")
	require.Equal(t, uint64(1<<64-1), scan[uint64](t, ctx, conn, "SELECT {x:UInt64}", clickhouse.Named("x", uint64(1<<64-1))))
	require.Equal(t, []string{"a'b", "c"}, scan[[]string](t, ctx, conn, "SELECT {x:Array(String)}", clickhouse.Named("x", []string{"a'b", "c"})))
	require.Nil(t, scan[*string](t, ctx, conn, "SELECT {x:Nullable(String)}", clickhouse.Named("x", nil)))
	at := time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC)
	require.True(t, at.Equal(scan[time.Time](t, ctx, conn, "SELECT {x:DateTime('UTC')}", clickhouse.Named("x", at))))
	given := clickhouse.Context(ctx, clickhouse.WithParameters(clickhouse.Parameters{"table": "one", "n": "3"}))
	require.Equal(t, uint64(3), scan[uint64](t, given, conn, "SELECT {n:UInt64} FROM system.{table:Identifier}"))
	err := conn.QueryRow(ctx, "SELECT {x:UInt8}", clickhouse.Named("x", "many")).Scan(new(uint8))
	requireCode(t, err, 457) // BAD_QUERY_PARAMETER
}

func TestErrorsKeepTheirCodes(t *testing.T) {
	address := devstacktest.ClickHouse(t)
	for _, compression := range []clickhouse.CompressionMethod{clickhouse.CompressionNone, clickhouse.CompressionLZ4, clickhouse.CompressionZSTD, clickhouse.CompressionGZIP} {
		conn := open(t, address, func(o *clickhouse.Options) { o.Compression = &clickhouse.Compression{Method: compression} })
		for query, code := range map[string]int32{
			"SELECT * FROM nowhere":                60, // UNKNOWN_TABLE
			"SELECT * FROM nowhere.nothing":        81, // UNKNOWN_DATABASE
			"SELECT FROM WHERE":                    62, // SYNTAX_ERROR
			"SELECT nothing":                       47, // UNKNOWN_IDENTIFIER
			"SELECT 1; SELECT 2":                   62,
			"SELECT throwIf(1)":                    395, // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO
			"SELECT 1 SETTINGS nothing = 1":        115, // UNKNOWN_SETTING
			"SELECT 1 SETTINGS max_threads = 'no'": 27,  // CANNOT_PARSE_INPUT_ASSERTION_FAILED
			"":                                     62,
		} {
			rows, err := conn.Query(context.Background(), query)
			if err == nil {
				rows.Close()
			}
			requireCode(t, err, code)
			if query != "" {
				requireCode(t, conn.Exec(context.Background(), query), code)
			}
		}
	}
	u, err := url.Parse(address)
	require.NoError(t, err)
	u.Path = "/nowhere"
	requireCode(t, open(t, u.String()).Ping(context.Background()), 81)
}

func TestSettings(t *testing.T) {
	conn := open(t, devstacktest.ClickHouse(t), func(o *clickhouse.Options) {
		o.Settings = clickhouse.Settings{"log_comment": "it's mine", "max_threads": 1}
	})
	ctx := context.Background()
	require.Equal(t, "it's mine", scan[string](t, ctx, conn, "SELECT getSetting('log_comment')"))
	require.Equal(t, "1", scan[string](t, ctx, conn, "SELECT toString(getSetting('max_threads'))"))

	quick := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_execution_time": 1}))
	err := conn.QueryRow(quick, "SELECT count() FROM numbers(1e13) WHERE NOT ignore(sipHash64(number))").Scan(new(uint64))
	requireCode(t, err, 159) // TIMEOUT_EXCEEDED

	unknown := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"no_such_setting": 1}))
	requireCode(t, conn.Exec(unknown, "SELECT 1"), 115)
	require.Equal(t, "0", scan[string](t, ctx, conn, "SELECT toString(getSetting('max_execution_time'))"), "a query's settings end with it")
}

func TestReadonlyRefusesToWrite(t *testing.T) {
	address := devstacktest.ClickHouse(t)
	writer := open(t, address)
	exec1(t, writer, "CREATE TABLE t (a Int32) ENGINE = MergeTree ORDER BY a")
	exec1(t, writer, "INSERT INTO t VALUES (1)")
	reader := open(t, address, func(o *clickhouse.Options) {
		o.Settings = clickhouse.Settings{"readonly": 1, "max_execution_time": 20}
	})
	ctx := context.Background()
	require.Equal(t, uint64(1), scan[uint64](t, ctx, reader, "SELECT count() FROM t"))
	for _, statement := range []string{
		"INSERT INTO t VALUES (2)", "INSERT INTO t SELECT 2", "INSERT INTO t FORMAT CSV 2",
		"CREATE TABLE u (a Int32) ENGINE = Memory", "CREATE DATABASE u", "CREATE FUNCTION f AS x -> x",
		"ALTER TABLE t DELETE WHERE 1", "ALTER TABLE t ADD COLUMN b Int8", "DELETE FROM t WHERE 1",
		"TRUNCATE TABLE t", "DROP TABLE t", "RENAME TABLE t TO u", "OPTIMIZE TABLE t",
		"SET max_execution_time = 0", "SET readonly = 0", "SELECT 1 SETTINGS readonly = 0", "SELECT 1 SETTINGS max_execution_time = 0",
	} {
		err := reader.Exec(ctx, statement)
		require.Error(t, err, statement)
		requireCode(t, err, 164) // READONLY
	}
	batch, err := reader.PrepareBatch(ctx, "INSERT INTO t")
	require.NoError(t, err)
	require.NoError(t, batch.Append(int32(2)))
	requireCode(t, batch.Send(), 164)
	require.Equal(t, uint64(1), scan[uint64](t, ctx, writer, "SELECT count() FROM t"))
}

func TestBatches(t *testing.T) {
	address := devstacktest.ClickHouse(t)
	exec1(t, open(t, address), `CREATE TABLE t (id UInt64, name LowCardinality(String), tags Array(String), at DateTime, amount Nullable(Decimal(18, 3)),
		country FixedString(2), upper String MATERIALIZED upper(name), other String ALIAS name) ENGINE = MergeTree ORDER BY id`)
	for _, method := range []clickhouse.CompressionMethod{
		clickhouse.CompressionNone, clickhouse.CompressionLZ4, clickhouse.CompressionZSTD,
		clickhouse.CompressionGZIP, clickhouse.CompressionDeflate, clickhouse.CompressionBrotli,
	} {
		conn := open(t, address, func(o *clickhouse.Options) { o.Compression = &clickhouse.Compression{Method: method} })
		ctx := context.Background()
		rows := 1000
		if method == clickhouse.CompressionNone || method == clickhouse.CompressionLZ4 {
			rows = 100_000
		}
		exec1(t, conn, "TRUNCATE TABLE t")
		batch, err := conn.PrepareBatch(ctx, "INSERT INTO t (id, name, tags, at, country)")
		require.NoError(t, err)
		at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		for i := range rows {
			if err := batch.Append(uint64(i), fmt.Sprint("name", i%100), []string{"a", fmt.Sprint(i)}, at.Add(time.Duration(i)*time.Second), "EE"); err != nil {
				t.Fatal(err)
			}
		}
		require.NoError(t, batch.Send())
		var count, distinct uint64
		var name, last string
		require.NoError(t, conn.QueryRow(ctx, "SELECT count(), uniqExact(tags[2]), argMax(upper, id), argMax(other, id) FROM t WHERE country = 'EE'").
			Scan(&count, &distinct, &name, &last), method.String())
		require.Equal(t, []any{uint64(rows), uint64(rows), "NAME99", "name99"}, []any{count, distinct, name, last})

		// And all of them back, in more than one block.
		result, err := conn.Query(ctx, "SELECT id, tags FROM t ORDER BY id")
		require.NoError(t, err)
		next := uint64(0)
		for result.Next() {
			var id uint64
			var tags []string
			if err := result.Scan(&id, &tags); err != nil || id != next {
				t.Fatalf("row %d has id %d, %v", next, id, err)
			}
			next++
		}
		require.NoError(t, result.Err())
		require.NoError(t, result.Close())
		require.Equal(t, uint64(rows), next)
	}
}

func TestBatchWithSettingsAndWithoutColumns(t *testing.T) {
	conn := open(t, devstacktest.ClickHouse(t))
	exec1(t, conn, "CREATE TABLE t (a Int32, b String DEFAULT 'none') ENGINE = MergeTree ORDER BY a")
	for _, statement := range []string{"INSERT INTO t", "INSERT INTO t (a, b) SETTINGS max_insert_threads = 1", "INSERT INTO t (b, a) VALUES"} {
		batch, err := conn.PrepareBatch(clickhouse.Context(context.Background(), clickhouse.WithAsync(true)), statement)
		require.NoError(t, err)
		if strings.Contains(statement, "(b, a)") {
			require.NoError(t, batch.Append("x\x00y", int32(7)))
		} else {
			require.NoError(t, batch.Append(int32(7), "x\x00y"))
		}
		require.NoError(t, batch.Send())
	}
	require.Equal(t, uint64(3), scan[uint64](t, context.Background(), conn, "SELECT countIf(b = 'x\\0y' AND a = 7) FROM t"))
}

func external(t testing.TB, name string, rows int, first int) *ext.Table {
	t.Helper()
	labels := column.Type("Array(LowCardinality(String))")
	if rows == 0 {
		labels = "Array(String)" // of LowCardinality the client sends something even for no rows, which no server can read
	}
	table, err := ext.NewTable(name, ext.Column("id", "UInt64"), ext.Column("labels", labels), ext.Column("from", "DateTime('UTC')"))
	require.NoError(t, err)
	for i := range rows {
		require.NoError(t, table.Append(uint64(first+i), []string{"a", "b"}, time.Unix(int64(i), 0)))
	}
	return table
}

func TestExternalTables(t *testing.T) {
	address := devstacktest.ClickHouse(t)
	writer := open(t, address)
	exec1(t, writer, "CREATE TABLE t (id UInt64) ENGINE = MergeTree ORDER BY id")
	exec1(t, writer, "INSERT INTO t SELECT number FROM numbers(1000)")
	for _, method := range []clickhouse.CompressionMethod{clickhouse.CompressionNone, clickhouse.CompressionLZ4} {
		reader := open(t, address, func(o *clickhouse.Options) {
			o.Settings = clickhouse.Settings{"readonly": 1}
			o.Compression = &clickhouse.Compression{Method: method}
			o.MaxOpenConns = 16
		})
		// All at the same time, each with its own table of the same name, beside one
		// that the database has.
		var all sync.WaitGroup
		for i := range 16 {
			all.Go(func() {
				ctx := clickhouse.Context(context.Background(), clickhouse.WithExternalTable(external(t, "t2", 10+i, i), external(t, "order by", 1, 0)))
				var joined, lowest, labels uint64
				err := reader.QueryRow(ctx, "SELECT count(), min(t.id), sum(length(t2.labels)) FROM t JOIN t2 ON t.id = t2.id, `order by`").Scan(&joined, &lowest, &labels)
				if err != nil || joined != uint64(10+i) || lowest != uint64(i) || labels != uint64(2*(10+i)) {
					t.Errorf("%d joined from %d with %d labels, %v", joined, lowest, labels, err)
				}
			})
		}
		all.Wait()
	}
	require.Equal(t, uint64(1), scan[uint64](t, context.Background(), writer, "SELECT count() FROM system.tables WHERE database = currentDatabase() OR is_temporary"))

	empty := clickhouse.Context(context.Background(), clickhouse.WithExternalTable(external(t, "t2", 0, 0)))
	require.Equal(t, uint64(0), scan[uint64](t, empty, writer, "SELECT count() FROM t2"))
	with := clickhouse.Context(context.Background(), clickhouse.WithExternalTable(external(t, "t2", 3, 5)),
		clickhouse.WithParameters(clickhouse.Parameters{"least": "6"}))
	require.Equal(t, uint64(2), scan[uint64](t, with, writer, "SELECT count() FROM t2 WHERE id >= {least:UInt64}"))
}

func TestManyClientsAtOnce(t *testing.T) {
	address := devstacktest.ClickHouse(t)
	conn := open(t, address, func(o *clickhouse.Options) { o.MaxOpenConns, o.MaxIdleConns = 48, 48 })
	exec1(t, conn, "CREATE TABLE t (client UInt32, n UInt32) ENGINE = MergeTree ORDER BY (client, n)")
	var all sync.WaitGroup
	for client := range 48 {
		all.Go(func() {
			ctx := context.Background()
			for n := range 5 {
				batch, err := conn.PrepareBatch(ctx, "INSERT INTO t")
				if err == nil {
					err = batch.Append(uint32(client), uint32(n))
				}
				if err == nil {
					err = batch.Send()
				}
				var count uint64
				if err == nil {
					err = conn.QueryRow(ctx, "SELECT count() FROM t WHERE client = {c:UInt32}", clickhouse.Named("c", client)).Scan(&count)
				}
				if err != nil || count != uint64(n+1) {
					t.Errorf("client %d sees %d of its %d rows, %v", client, count, n+1, err)
					return
				}
			}
		})
	}
	all.Wait()
	require.Equal(t, uint64(240), scan[uint64](t, context.Background(), conn, "SELECT uniqExact(client, n) FROM t"))
}

// endless takes minutes unless it is stopped.
const endless = "SELECT count() FROM numbers(1e13) WHERE NOT ignore(sipHash64(number))"

func running(t testing.TB, conn driver.Conn) uint64 {
	return scan[uint64](t, context.Background(), conn, "SELECT count() FROM system.processes WHERE query LIKE '%numbers(1e13)%' AND query NOT LIKE '%processes%'")
}

func TestCancelledQueriesEndInTheEngine(t *testing.T) {
	address := devstacktest.ClickHouse(t)
	conn := open(t, address, func(o *clickhouse.Options) { o.MaxOpenConns, o.MaxIdleConns = 64, 64 })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	// More than the front lets into the engine: the rest is waiting for a place.
	const queries = 40
	ended := make(chan error, queries)
	for range queries {
		go func() { ended <- conn.QueryRow(ctx, endless).Scan(new(uint64)) }()
	}
	// One client's way around the queue: the process list of the engine is not asked
	// through the front, but the queue is full when a short query does not return.
	require.Eventually(t, func() bool {
		brief, done := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer done()
		return conn.QueryRow(brief, "SELECT 1").Scan(new(uint8)) != nil
	}, 20*time.Second, time.Millisecond, "the engine is full")

	cancel()
	for range queries {
		require.ErrorIs(t, <-ended, context.Canceled)
	}
	require.Eventually(t, func() bool { return running(t, conn) == 0 }, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, conn.Ping(context.Background()))
}

func TestClientThatLeavesWhileSendingRows(t *testing.T) {
	address := devstacktest.ClickHouse(t)
	conn := open(t, address)
	exec1(t, conn, "CREATE TABLE t (a String) ENGINE = MergeTree ORDER BY a")
	u, err := url.Parse(address)
	require.NoError(t, err)
	u.RawQuery = url.Values{"database": {strings.Trim(u.Path, "/")}, "query": {"INSERT INTO t FORMAT TSV"}}.Encode()
	u.Path = "/"
	body, rows := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), body)
	require.NoError(t, err)
	left := make(chan error, 1)
	go func() {
		_, err := http.DefaultClient.Do(request)
		left <- err
	}()
	_, err = io.WriteString(rows, strings.Repeat("row\n", 100_000))
	require.NoError(t, err)
	cancel()
	rows.CloseWithError(io.ErrUnexpectedEOF) // or the client would wait for more to send
	require.Error(t, <-left)
	http.DefaultClient.CloseIdleConnections()
	require.Equal(t, uint64(0), scan[uint64](t, context.Background(), conn, "SELECT count() FROM t"), "half an insert is none")
}

// curl is what a shell does: one HTTP request.
func curl(t testing.TB, method, address, query string, values url.Values, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	u, err := url.Parse(address)
	require.NoError(t, err)
	if values == nil {
		values = url.Values{}
	}
	values.Set("database", strings.Trim(u.Path, "/"))
	if query != "" {
		values.Set("query", query)
	}
	u.Path, u.RawQuery = "/", values.Encode()
	request, err := http.NewRequest(method, u.String(), strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host
	}
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer http.DefaultClient.CloseIdleConnections()
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(text), response.Header
}

func TestPlainHTTP(t *testing.T) {
	address := devstacktest.ClickHouse(t)
	for _, c := range []struct {
		method, query, body string
		values              url.Values
		want                string
	}{
		{"POST", "", "SELECT 1, 'a'", nil, "1\ta\n"},
		{"GET", "SELECT 1, 'a'", "", nil, "1\ta\n"},
		{"POST", "SELECT 1,", "'a'", nil, "1\ta\n"},
		{"POST", "", "SELECT 1 AS a FORMAT JSONEachRow", nil, "{\"a\":1}\n"},
		{"POST", "", "SELECT {x:UInt8} + 1 AS a", url.Values{"param_x": {"41"}, "default_format": {"CSVWithNames"}}, "\"a\"\n42\n"},
		{"POST", "", "CREATE TABLE t (a Int32, b String) ENGINE = MergeTree ORDER BY a", nil, ""},
		{"POST", "", "INSERT INTO t VALUES (1, 'one; \\'1\\''), (2, 'two')", nil, ""},
		{"POST", "INSERT INTO t VALUES", "(3, 'three'), (1 + 3, 'four')", nil, ""},
		{"POST", "INSERT INTO t (a)", "VALUES (5)", nil, ""},
		{"POST", "INSERT INTO t FORMAT JSONEachRow", `{"a": 6, "b": "six;"}`, nil, ""},
		{"POST", "", "INSERT INTO t FORMAT CSV\n7,seven\n8,\"eight;\"\n", nil, ""},
		{"POST", "", "INSERT INTO t SELECT 9, 'nine';", nil, ""},
		{"POST", "INSERT INTO t FORMAT CSV", "", nil, ""},
		{"POST", "", "SELECT groupArray(a), groupArray(length(b)) FROM (SELECT * FROM t ORDER BY a)", nil, "[1,2,3,4,5,6,7,8,9]\t[8,3,5,4,0,4,5,6,4]\n"},
	} {
		status, text, _ := curl(t, c.method, address, c.query, c.values, c.body)
		require.Equal(t, http.StatusOK, status, text)
		require.Equal(t, c.want, text)
	}

	status, text, header := curl(t, "POST", address, "", nil, "SELECT * FROM nowhere")
	require.Equal(t, http.StatusNotFound, status)
	require.Equal(t, "60", header.Get("X-ClickHouse-Exception-Code"))
	require.True(t, strings.HasPrefix(text, "Code: 60. DB::Exception: ") && strings.HasSuffix(text, ")\n"), text)

	status, text, _ = curl(t, "GET", address, "DROP TABLE t", nil, "")
	require.Equal(t, http.StatusForbidden, status, text)

	u, err := url.Parse(address)
	require.NoError(t, err)
	u.Path = "/ping"
	_, text, _ = curl(t, "GET", "http://"+u.Host, "", nil, "")
	require.Equal(t, "Ok.\n", text)
}

func TestWebPagesAreKeptOut(t *testing.T) {
	address := devstacktest.ClickHouse(t)
	for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Host", "evil.example"}} {
		status, _, _ := curl(t, "POST", address, "", nil, "SELECT 1", header...)
		require.Equal(t, http.StatusForbidden, status)
	}
}

func TestBrokenRequestsAreRefused(t *testing.T) {
	address := devstacktest.ClickHouse(t)
	for _, c := range []struct {
		values url.Values
		body   string
		header []string
	}{
		{url.Values{"decompress": {"1"}}, "not compressed", nil},
		{nil, "not gzip", []string{"Content-Encoding", "gzip"}},
		{nil, "x", []string{"Content-Encoding", "unheard-of"}},
		{nil, "--x\r\n", []string{"Content-Type", "multipart/form-data; boundary=x"}},
		{url.Values{"compress": {"1"}, "network_compression_method": {"LZMA"}}, "SELECT 1", nil},
		{url.Values{"session_id": {"a"}}, "SELECT 1", nil},
		{url.Values{"e_structure": {"a Int32"}, "e_format": {"CSV"}}, "--x\r\nContent-Disposition: form-data; name=\"e\"\r\n\r\nno number\r\n--x\r\n" +
			"Content-Disposition: form-data; name=\"query\"\r\n\r\nSELECT 1\r\n--x--\r\n", []string{"Content-Type", "multipart/form-data; boundary=x"}},
	} {
		status, text, header := curl(t, "POST", address, "", c.values, c.body, c.header...)
		require.NotEqual(t, http.StatusOK, status)
		require.NotEmpty(t, header.Get("X-ClickHouse-Exception-Code"), text)
	}
}

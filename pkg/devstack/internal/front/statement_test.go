package front

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExamineQuery(t *testing.T) {
	for text, want := range map[string]string{
		"SELECT 1":                               "SELECT 1",
		"SELECT 1;":                              "SELECT 1",
		"SELECT 1 ; -- the end":                  "SELECT 1 ",
		"SELECT ';', `;`, \";\", 'it''s; \\'; '": "SELECT ';', `;`, \";\", 'it''s; \\'; '",
		"SELECT 1 /* ; */ + 1 -- ;\n + 1":        "SELECT 1 /* ; */ + 1 -- ;\n + 1",
		"SELECT $tag$;$tag$":                     "SELECT $tag$;$tag$",
		"INSERT INTO t VALUES (1, ';')":          "INSERT INTO t VALUES (1, ';')",
		"INSERT INTO t SELECT 1 FORMAT Null":     "INSERT INTO t SELECT 1 FORMAT Null",
		"INSERT INTO t FORMAT Values (1)":        "INSERT INTO t FORMAT Values (1)",
		"insert into format values (1)":          "insert into format values (1)",
		"SELECT * FROM infile":                   "SELECT * FROM infile",
	} {
		query, rows, err := examine(text)
		require.NoError(t, err, text)
		require.Nil(t, rows, text)
		require.Equal(t, want, query)
	}
}

func TestExamineRefuses(t *testing.T) {
	for text, want := range map[string]error{
		"":                              errEmptyQuery,
		" -- only a remark":             errEmptyQuery,
		";":                             errEmptyQuery,
		"SELECT 1; SELECT 2":            errSeveralQueries,
		"DROP TABLE a;DROP TABLE b":     errSeveralQueries,
		"SELECT 1 INTO OUTFILE 'x'":     errQueryTouchFiles,
		"INSERT INTO t FROM INFILE 'x'": errQueryTouchFiles,
		"INSERT INTO t (a) FROM /**/ INFILE 'x' FORMAT CSV": errQueryTouchFiles,
	} {
		_, _, err := examine(text)
		require.ErrorIs(t, err, want, text)
	}
}

func TestExamineInsertCutsOutItsRows(t *testing.T) {
	for _, c := range []struct{ text, head, tail, rows string }{
		{"INSERT INTO t FORMAT Native\nrows", "INSERT INTO t ", "FORMAT Native", "rows"},
		{"INSERT INTO t (`FORMAT`, b) FORMAT CSV 1,2", "INSERT INTO t (`FORMAT`, b) ", "FORMAT CSV", "1,2"},
		{"INSERT INTO t FORMAT CSV;\n1;2", "INSERT INTO t ", "FORMAT CSV", "1;2"},
		{"INSERT INTO t FORMAT Native\n\n\t ", "INSERT INTO t ", "FORMAT Native", "\n\t "},
		{"INSERT INTO a.format SETTINGS x = 1 FORMAT Native", "INSERT INTO a.format ", "SETTINGS x = 1 FORMAT Native", ""},
		{"insert into table t (a) values", "insert into table t (a) ", "FORMAT Values", ""},
		{"INSERT INTO t -- FORMAT x\nFORMAT CSV\n1", "INSERT INTO t -- FORMAT x\n", "FORMAT CSV", "1"},
	} {
		_, insert, err := examine(c.text)
		require.NoError(t, err, c.text)
		require.NotNil(t, insert, c.text)
		require.Equal(t, []string{c.head, c.tail, c.rows}, []string{insert.head, insert.tail, c.text[insert.data:]})
	}
}

// Whatever comes in, the front neither panics nor hands on two statements.
func FuzzExamine(f *testing.F) {
	for _, seed := range []string{"SELECT 1; SELECT 2", "INSERT INTO t FORMAT CSV\n1", "SELECT '\\", "$$a$$", "$a", "INSERT INTO", "INSERT INTO a.", "/*", "'", "# x\n;"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		query, rows, err := examine(text)
		switch {
		case err != nil:
		case rows != nil:
			if rows.data > len(text) || !strings.HasPrefix(text, rows.head) || rows.tail == "" {
				t.Fatalf("%q is cut into %+v", text, rows)
			}
		default:
			again, _, err := examine(query)
			if !strings.HasPrefix(text, query) || err != nil || again != query {
				t.Fatalf("%q becomes %q, and that %q, %v", text, query, again, err)
			}
		}
	})
}

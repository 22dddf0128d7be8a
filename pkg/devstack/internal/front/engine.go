package front

// Engine runs SQL. Its sessions may run at the same time as each other.
type Engine interface {
	Open() (Session, error)
}

// Session keeps settings, query parameters, the current database and temporary
// tables from one statement to the next. It runs one statement at a time.
type Session interface {
	// Run returns the whole result in the format, unless the statement names a
	// format of its own. An error's text is ClickHouse's: Code: 60. DB::Exception: …
	Run(statement, format string) (Result, error)
	Close()
}

// Result is what a statement returned and what it read for that.
type Result struct {
	Data      []byte
	Rows      uint64
	Bytes     uint64
	ElapsedNS uint64
}

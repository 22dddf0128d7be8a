// Package chdb is the ClickHouse engine as a library in this process. Importing it
// loads the library named by CHDB_LIB_PATH, and panics if there is none.
package chdb

import (
	"fmt"
	"os"

	chdbpurego "github.com/chdb-io/chdb-go/chdb-purego"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/internal/front"
)

// Engine holds the data of one directory open.
type Engine struct {
	dir    string
	anchor chdbpurego.ChdbConn // the engine stops when its last connection closes
}

// Open starts the engine on a directory, which is created if need be. A process
// can have one directory open.
func Open(dir string) (*Engine, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the engine: %w", err)
	}
	e := &Engine{dir: dir}
	var err error
	if e.anchor, err = e.connect(); err != nil {
		return nil, err
	}
	return e, nil
}

// Close stops the engine. All sessions have to be closed before.
func (e *Engine) Close() { e.anchor.Close() }

// Open starts a session of its own settings; it costs a fraction of a millisecond.
func (e *Engine) Open() (front.Session, error) {
	c, err := e.connect()
	if err != nil {
		return nil, err
	}
	return session{c}, nil
}

func (e *Engine) connect() (chdbpurego.ChdbConn, error) {
	c, err := chdbpurego.NewConnection(2, []string{"clickhouse", "--path=" + e.dir}) //nolint:staticcheck // the form that is preferred to it takes a ? in the folder's name for parameters
	if err != nil {
		return nil, fmt.Errorf("open the engine on %s: %w", e.dir, err)
	}
	return c, nil
}

type session struct{ conn chdbpurego.ChdbConn }

func (s session) Run(statement, format string) (front.Result, error) {
	r, err := s.conn.Query(statement, format)
	if err != nil {
		return front.Result{}, err
	}
	defer r.Free()
	return front.Result{
		Data:      append([]byte(nil), r.Buf()...), // the engine's own memory ends with r
		Rows:      r.RowsRead(),
		Bytes:     r.BytesRead(),
		ElapsedNS: uint64(r.Elapsed() * 1e9),
	}, nil
}

func (s session) Close() { s.conn.Close() }

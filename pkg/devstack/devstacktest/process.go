package devstacktest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
)

// process holds the servers that the tests of this process share.
var process servers

type servers struct {
	dir                  string   // empty without Main
	claim                *os.File // locked as long as this process lives
	postgres, clickhouse server
}

// server is started by the first test that needs it.
type server struct {
	once  sync.Once
	stack *devstack.Stack
	err   error
}

// prefix of the folders that tests keep their servers' data in.
const prefix = "devstack-test-"

func (p *servers) begin() {
	sweep()
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return // the first test that needs the folder says so
	}
	// Postgres may run as another user, who has to pass through.
	if err := os.Chmod(dir, 0o711); err != nil {
		return
	}
	if p.claim, err = lock(dir); err != nil {
		return
	}
	p.dir = dir
}

func (p *servers) end() error {
	var errs []error
	for _, s := range []*server{&p.postgres, &p.clickhouse} {
		if s.stack != nil {
			errs = append(errs, s.stack.Stop())
		}
	}
	if p.dir != "" {
		errs = append(errs, os.RemoveAll(p.dir), p.claim.Close())
	}
	return errors.Join(errs...)
}

func (s *server) get(t testing.TB, o devstack.Options) *devstack.Stack {
	t.Helper()
	s.once.Do(func() {
		if process.dir == "" {
			s.err = errors.New("the package needs func TestMain(m *testing.M) { devstacktest.Main(m) } and a folder for temporary files")
			return
		}
		o.Dir, o.Fast, o.Log = process.dir, true, warnings
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		s.stack, s.err = start(ctx, o)
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.stack
}

// sweep removes the folders of test processes that were killed.
func sweep() {
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	for _, dir := range dirs {
		if info, err := os.Stat(dir); err != nil || time.Since(info.ModTime()) < time.Minute {
			continue // it may be so new that its process has not locked it yet
		}
		if claim, err := lock(dir); err == nil {
			_ = os.RemoveAll(dir) // the next one tries again
			claim.Close()
		}
	}
}

// lock fails while the process that made the folder lives.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "claim"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

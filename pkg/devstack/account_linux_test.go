package devstack

import (
	"context"
	"log/slog"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// Where user namespaces are refused, root's Postgres runs as nobody, also on data
// that was root's before, and the other way round.
func TestRootWithoutNamespaces(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this user is ordinary")
	}
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "devstack-nobody-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	require.NoError(t, os.Chmod(dir, 0o711))

	asNobody := func() (account, error) { return account{nobody: true}, nil }
	for _, who := range []func() (account, error){findAccount, asNobody, findAccount} {
		p := newPostgres(Options{Dir: dir, Fast: true, Postgres: &Engine{}, Log: slog.New(slog.DiscardHandler)})
		p.account = who
		require.NoError(t, p.Start(ctx))
		require.NoError(t, p.Stop())
	}

	require.NoError(t, os.Chmod(dir, 0o700))
	p := newPostgres(Options{Dir: dir, Fast: true, Postgres: &Engine{}, Log: slog.New(slog.DiscardHandler)})
	p.account = asNobody
	require.ErrorContains(t, p.Start(ctx), "open the folders above it")
}

func TestFailedStartShowsTheLog(t *testing.T) {
	p := newPostgres(Options{Dir: t.TempDir(), Fast: true, Postgres: &Engine{}, Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, p.Start(context.Background()))
	require.NoError(t, p.Stop())
	require.NoError(t, os.WriteFile(p.data()+"/postgresql.conf", []byte("no_such_setting = 1\n"), 0o600))
	err := p.Start(context.Background())
	require.ErrorContains(t, err, "no_such_setting")
	require.NotErrorIs(t, err, errPortLost)
}

func TestLinksAreMadeByManyAtOnce(t *testing.T) {
	pkg := t.TempDir()
	require.NoError(t, os.MkdirAll(pkg+"/native/lib", 0o755))
	require.NoError(t, os.WriteFile(pkg+"/native/lib/libx.so.1.2", []byte("x"), 0o644))
	require.NoError(t, os.WriteFile(pkg+"/native/pg-symlinks.json",
		[]byte(`[{"source":"native/lib/libx.so.1.2","target":"native/lib/libx.so.1"},{"source":"native/lib/libx.so.1.2","target":"native/lib/libx.so"}]`), 0o644))
	made := make(chan error)
	for range 8 {
		go func() { made <- makeLinks(pkg) }()
	}
	for range 8 {
		require.NoError(t, <-made)
	}
	text, err := os.ReadFile(pkg + "/native/lib/libx.so")
	require.NoError(t, err)
	require.Equal(t, "x", string(text))

	require.NoError(t, os.WriteFile(pkg+"/native/pg-symlinks.json", []byte(`[{"source":"../../etc","target":"native/x"}]`), 0o644))
	require.ErrorContains(t, makeLinks(pkg), "outside itself")
}

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func newHome(t *testing.T) *home {
	t.Helper()
	h, err := enter(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, h.leave()) })
	return h
}

func TestOneStackAtATimeLivesInAFolder(t *testing.T) {
	h := newHome(t)
	_, err := enter(h.dir)
	require.ErrorIs(t, err, errInhabited)
}

func TestSecretsAreMadeOnceAndReadableByTheirOwnerOnly(t *testing.T) {
	h := newHome(t)
	first, err := h.secrets()
	require.NoError(t, err)
	again, err := h.secrets()
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Len(t, first.PlausibleSecretKeyBase, 64)
	info, err := os.Stat(h.path(secretsFile))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	require.NoError(t, os.WriteFile(h.path(secretsFile), []byte("{}"), 0o600))
	_, err = h.secrets()
	require.ErrorContains(t, err, "lacks a secret")
	require.NoError(t, os.WriteFile(h.path(secretsFile), []byte("{"), 0o600))
	_, err = h.secrets()
	require.ErrorContains(t, err, "is damaged")
}

func TestAddressFileCanBeSourced(t *testing.T) {
	h := newHome(t)
	values := [][2]string{{"PLAIN", "postgres://u:p@127.0.0.1:5433/db?sslmode=disable"}, {"ODD", `it's a & b $HOME`}}
	require.NoError(t, h.writeEnv(values))
	text, err := os.ReadFile(h.path(envFile))
	require.NoError(t, err)
	require.Contains(t, string(text), "PLAIN="+values[0][1]+"\n", "plain values stand as they are")
	out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", `. "$1"; printf '%s\n' "$PLAIN" "$ODD"`, "sh", h.path(envFile)).Output()
	require.NoError(t, err)
	require.Equal(t, []string{values[0][1], values[1][1]}, strings.Split(strings.TrimSpace(string(out)), "\n"))
	info, err := os.Stat(h.path(envFile))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	require.NoError(t, h.remove(envFile))
	require.NoError(t, h.remove(envFile), "removed twice is removed")
}

package main

import (
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEveryProblemOfTheEnvironmentIsToldAtOnce(t *testing.T) {
	_, err := readSettings([]string{
		"API_PORT=abc", "NATS_PORT=", "POSTGRES_PORT=70000", "RECEIVER_PORT=8123", "METRICS_ADDR=nowhere", "TRAFFIC=maybe",
		"EVALUATION_INTERVAL=7s", "ALLOW_PRIVATE_TARGETS=everything",
	})
	for _, want := range []string{
		`API_PORT is "abc"`, "NATS_PORT is empty", `POSTGRES_PORT is "70000"`, "RECEIVER_PORT and CLICKHOUSE_PORT are both 8123",
		`METRICS_ADDR is "nowhere"`, `TRAFFIC is "maybe"`, "EVALUATION_INTERVAL", "ALLOW_PRIVATE_TARGETS",
	} {
		require.ErrorContains(t, err, want)
		require.Equal(t, 1, strings.Count(err.Error(), want), "said once: %s", want)
	}
}

func TestDefaults(t *testing.T) {
	s, err := readSettings(nil)
	require.NoError(t, err)
	require.Equal(t, []int{8080, 8090, 9090, 4222, 5433, 8123},
		[]int{s.api.port, s.receiver.port, s.metrics.port, s.nats.port, s.postgres.port, s.clickhouse.port})
	require.True(t, s.traffic)
	require.True(t, strings.HasSuffix(s.dir, "/.local"), s.dir)
}

func TestTakenPortIsNamedWithItsVariable(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	s, err := readSettings([]string{"RECEIVER_PORT=" + strconv.Itoa(port)})
	require.NoError(t, err)
	problems := claim([]*endpoint{s.receiver})
	require.Len(t, problems, 1)
	require.ErrorContains(t, problems[0], "port "+strconv.Itoa(port)+" of RECEIVER_PORT")
}

func TestPortZeroIsAnyFreeOneAndNoTwoAreTheSame(t *testing.T) {
	s, err := readSettings([]string{"API_PORT=0", "RECEIVER_PORT=0", "NATS_PORT=0", "POSTGRES_PORT=0", "CLICKHOUSE_PORT=0", "METRICS_ADDR=127.0.0.1:0"})
	require.NoError(t, err)
	require.Empty(t, claim(s.endpoints(true)))
	seen := map[int]bool{}
	for _, e := range s.endpoints(true) {
		require.NotZero(t, e.port)
		require.False(t, seen[e.port])
		seen[e.port] = true
	}
}

func TestWhatIsGivenWinsButTheDatabasesAreTheStacks(t *testing.T) {
	read := func(environ ...string) map[string]string {
		s, err := readSettings(environ)
		require.NoError(t, err)
		variables := map[string]string{}
		for _, line := range s.environment(secrets{PlausibleSecretKeyBase: "p", SecretsKey: "k"}, addresses{database: "postgres://own/database"}) {
			name, value, _ := strings.Cut(line, "=")
			variables[name] = value
		}
		return variables
	}
	own := read()
	require.Equal(t, "true", own["ALLOW_HTTP_TARGETS"])
	require.Equal(t, "127.0.0.0/8,::1/128", own["ALLOW_PRIVATE_TARGETS"])

	given := read("ALLOW_HTTP_TARGETS=false", "ALLOW_PRIVATE_TARGETS=", "DATABASE_URL=postgres://elsewhere/production", "SECRETS_KEY_FILE=/x", "LOG_LEVEL=debug")
	require.Equal(t, "false", given["ALLOW_HTTP_TARGETS"])
	require.Empty(t, given["ALLOW_PRIVATE_TARGETS"])
	require.Equal(t, "debug", given["LOG_LEVEL"])
	require.Equal(t, "postgres://own/database", given["DATABASE_URL"])
	require.Equal(t, "k", given["SECRETS_KEY"])
	require.NotContains(t, given, "SECRETS_KEY_FILE")
}

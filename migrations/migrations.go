// Package migrations is the schema of the product's own Postgres database: the
// contract between the three services. DDL stands here and nowhere else, as goose
// files that are compiled into every service, so that each knows which version it
// needs and refuses to start on an older one.
package migrations

import (
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

//go:embed postgres/*.sql
var files embed.FS

// Postgres holds the goose files of the own database, at the root of the file system.
func Postgres() fs.FS {
	sub, err := fs.Sub(files, "postgres")
	if err != nil { // the folder is embedded above: it is there or nothing compiles
		panic(err)
	}
	return sub
}

// Latest is the newest schema version: the number that the last file's name starts with.
func Latest() int64 {
	names, err := fs.Glob(Postgres(), "*.sql")
	if err != nil || len(names) == 0 {
		panic(fmt.Sprintf("migrations: no files embedded: %v", err))
	}
	var latest int64
	for _, name := range names {
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			panic(fmt.Sprintf("migrations: %s does not start with a version: %v", name, err))
		}
		latest = max(latest, version)
	}
	return latest
}

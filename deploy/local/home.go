package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// home is the folder of a stack, LOCAL_DIR: the engines' data, the secrets, the log. One stack
// at a time lives in it.
type home struct {
	dir  string
	lock *os.File
}

// The files in it, besides the engines' folders.
const (
	lockFile     = "lock"
	secretsFile  = "secrets.json"
	receiverFile = "receiver.json"
	logFile      = "stack.log"
	envFile      = "stack.env"
)

// errInhabited says that a stack is running there already.
var errInhabited = errors.New("a stack is running there already: stop it first (Ctrl-C in its terminal), or give this one another LOCAL_DIR and other ports")

// enter opens the folder. It can be looked into by others, because an engine may have to run as
// another user; what is secret in it is readable by its owner only.
func enter(dir string) (*home, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // G301: see above
		return nil, fmt.Errorf("LOCAL_DIR: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("LOCAL_DIR: %w", err)
	}
	// The system releases it with the process, however that ends.
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("LOCAL_DIR is %s: %w", dir, errInhabited), lock.Close())
	}
	return &home{dir: dir, lock: lock}, nil
}

func (h *home) leave() error { return h.lock.Close() }

func (h *home) path(name string) string { return filepath.Join(h.dir, name) }

// secrets are made once and stay: with others, neither the demo key nor the webhooks' secrets
// in the database could be read any more.
type secrets struct {
	PlausibleSecretKeyBase string `json:"plausible_secret_key_base"`
	SecretsKey             string `json:"secrets_key"`
}

func (h *home) secrets() (secrets, error) {
	var s secrets
	err := h.load(secretsFile, &s)
	if err == nil && (s.PlausibleSecretKeyBase == "" || s.SecretsKey == "") {
		return s, fmt.Errorf("%s lacks a secret: remove the whole folder %s to begin anew", h.path(secretsFile), h.dir)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	s = secrets{PlausibleSecretKeyBase: random(48), SecretsKey: random(32)}
	return s, h.save(secretsFile, s)
}

func random(size int) string {
	bytes := make([]byte, size)
	_, _ = rand.Read(bytes) // never fails: crypto/rand ends the program rather than return an error
	return base64.StdEncoding.EncodeToString(bytes)
}

// load reads a JSON file of the folder.
func (h *home) load(name string, into any) error {
	text, err := os.ReadFile(h.path(name))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s is damaged: %w", h.path(name), err)
	}
	return nil
}

func (h *home) save(name string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return h.write(name, string(text)+"\n")
}

// write replaces a file as a whole, readable by its owner only.
func (h *home) write(name, text string) (err error) {
	file, err := os.CreateTemp(h.dir, name+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", name, errors.Join(err, os.Remove(file.Name())))
		}
	}()
	if _, err := file.WriteString(text); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), h.path(name))
}

func (h *home) remove(name string) error {
	if err := os.Remove(h.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// writeEnv announces the stack: lines that a shell can source and a program can split.
func (h *home) writeEnv(lines [][2]string) error {
	var text strings.Builder
	for _, line := range lines {
		fmt.Fprintf(&text, "%s=%s\n", line[0], quote(line[1]))
	}
	return h.write(envFile, text.String())
}

var plain = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./?-]*$`)

// quote leaves alone what a shell takes literally.
func quote(value string) string {
	if plain.MatchString(value) {
		return value
	}
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// longestLog is where the log begins anew at a start; one older file is kept.
const longestLog = 16 << 20

// openLog is where the services write.
func (h *home) openLog() (*os.File, error) {
	path := h.path(logFile)
	if info, err := os.Stat(path); err == nil && info.Size() > longestLog {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// logger writes JSON lines as the services do in production.
func logger(file *os.File, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(file, &slog.HandlerOptions{Level: level}))
}

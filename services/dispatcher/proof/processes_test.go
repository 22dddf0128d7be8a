// Package proof shows what is claimed of the dispatcher, on real servers and real processes: how
// fast it is beside the bare limit and beside River (make bench-dispatcher), and that crashes
// lose nothing (make soak).
package proof

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack"
	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher"
)

// roleVariable makes this test binary be one of the processes at work, so that each can be
// killed, and its time and memory told from the others'.
const roleVariable = "PROOF_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "dispatcher":
		daemon.Main("dispatcher", dispatcher.Run)
	case "nats":
		play(runNATS)
	case "receiver":
		play(runReceiver)
	case "bare":
		play(runBare)
	case "river":
		play(runRiver)
	}
	devstacktest.Main(m)
}

// play is a process that answers each line of its input with a line, and ends with its input.
// The first line says that it is ready.
func play(role func() (ready string, answer func(command []string) (string, error), err error)) {
	ready, answer, err := role()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(ready)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		line, err := answer(strings.Fields(in.Text()))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(line)
	}
	os.Exit(0)
}

// process is another process. One that plays a role is asked over its input and output.
type process struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
	ready string // its first line
}

// role starts this test binary in a role and returns when it is ready.
func role(t testing.TB, name string, env ...string) *process {
	t.Helper()
	p := &process{t: t, cmd: roleCommand(t, name, env...)}
	var err error
	p.in, err = p.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := p.cmd.StdoutPipe()
	require.NoError(t, err)
	p.out = bufio.NewScanner(out)
	p.cmd.Stderr = os.Stderr
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		p.in.Close()
		_ = p.cmd.Wait() // it may have been killed
	})
	p.ready = p.line()
	return p
}

func roleCommand(t testing.TB, name string, env ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(program)
	cmd.Env = append(append(os.Environ(), roleVariable+"="+name), env...)
	return cmd
}

func (p *process) line() string {
	p.t.Helper()
	if !p.out.Scan() {
		p.t.Fatalf("%s ended: %v", p.cmd, p.out.Err())
	}
	return p.out.Text()
}

// ask gives a command and waits for its answer.
func (p *process) ask(command string, args ...any) string {
	p.t.Helper()
	_, err := fmt.Fprintf(p.in, command+"\n", args...)
	require.NoError(p.t, err)
	return p.line()
}

// kill ends it as a crash would.
func (p *process) kill() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Kill())
	_ = p.cmd.Wait() // it says that it was killed
}

// runNATS is a broker in a process of its own, on the port and with the files that the
// environment names.
func runNATS() (string, func([]string) (string, error), error) {
	port, err := strconv.Atoi(os.Getenv("NATS_PORT"))
	if err != nil {
		return "", nil, err
	}
	stack, err := devstack.Start(context.Background(), devstack.Options{Dir: os.Getenv("NATS_DIR"), NATS: &devstack.Engine{Port: port}})
	if err != nil {
		return "", nil, err
	}
	return stack.NATSURL(), func([]string) (string, error) { return "", errors.New("NATS takes no commands") }, nil
}

// broker starts NATS in a process of its own. The same folder and port bring back the same one.
func broker(t testing.TB, dir string, port int) *process {
	t.Helper()
	return role(t, "nats", "NATS_DIR="+dir, "NATS_PORT="+strconv.Itoa(port), "DEVSTACK=embedded")
}

func freePort(t testing.TB) int {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// ---------------------------------------------------------------- time and memory, as the system counts them

// tick is the unit of processor time in /proc: Linux' USER_HZ is 100 everywhere.
const tick = 10 * time.Millisecond

// stat reads the fields of /proc/<pid>/stat that follow the name; ok is false if it has ended.
func stat(pid int) (fields []string, ok bool) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, false
	}
	text := string(raw)
	return strings.Fields(text[strings.LastIndexByte(text, ')')+1:]), true
}

func number(fields []string, i int) int64 {
	n, _ := strconv.ParseInt(fields[i], 10, 64) // the system writes numbers there
	return n
}

// cpu is the processor time that a process has used, with the children that it has waited for.
func cpu(pid int) time.Duration {
	fields, ok := stat(pid)
	if !ok {
		return 0
	}
	const utime = 11
	var sum int64
	for i := range 4 {
		sum += number(fields, utime+i)
	}
	return time.Duration(sum) * tick
}

// cpuOfFamily is that of a process and of all its children.
func cpuOfFamily(pid int) time.Duration {
	sum := cpu(pid)
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		child, _ := strconv.Atoi(filepath.Base(entry))
		if parent(child) == pid {
			sum += cpu(child)
		}
	}
	return sum
}

func parent(pid int) int {
	fields, ok := stat(pid)
	if !ok {
		return 0
	}
	return int(number(fields, 1))
}

// postmaster is the process that all of a Postgres server's are children of.
func postmaster(t testing.TB, conn *pgx.Conn) int {
	var backend int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&backend))
	pid := parent(backend)
	require.NotZero(t, pid, "Postgres runs on this machine")
	return pid
}

// residentMB is the most memory that a process had, in megabytes, at any time until now.
func residentMB(t testing.TB, pid int) float64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	_, after, found := strings.Cut(string(raw), "VmHWM:")
	require.True(t, found)
	kib, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
	require.NoError(t, err)
	return kib * 1024 / 1e6
}

func interrupt(p *exec.Cmd) error {
	if err := p.Process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	return p.Wait()
}

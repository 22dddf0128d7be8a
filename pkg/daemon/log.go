package daemon

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// logLines writes log lines together, because each write costs as much as the line: a dispatcher makes
// one for each delivery. A line waits for logWait at most, and a warning for nothing, so that a crash
// cannot hide what led to it.
type logLines struct {
	mu     sync.Mutex
	out    io.Writer
	buffer []byte
	timed  bool // flush will be called
}

const (
	logWait   = 50 * time.Millisecond
	logBuffer = 32 << 10
)

// Write takes in one line.
func (l *logLines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buffer = append(l.buffer, line...)
	if len(l.buffer) >= logBuffer {
		return len(line), l.write()
	}
	if !l.timed {
		l.timed = true
		time.AfterFunc(logWait, l.flush)
	}
	return len(line), nil
}

func (l *logLines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timed = false
	_ = l.write() // a log that cannot be written has nobody to be told
}

func (l *logLines) write() error {
	if len(l.buffer) == 0 {
		return nil
	}
	_, err := l.out.Write(l.buffer)
	l.buffer = l.buffer[:0]
	return err
}

// promptly flushes after warnings and errors.
type promptly struct {
	slog.Handler
	lines *logLines
}

// newLog makes JSON lines on out.
func newLog(out io.Writer, level slog.Level) (*slog.Logger, *logLines) {
	lines := &logLines{out: out}
	return slog.New(promptly{slog.NewJSONHandler(lines, &slog.HandlerOptions{Level: level}), lines}), lines
}

// Handle implements slog.Handler.
func (p promptly) Handle(ctx context.Context, r slog.Record) error {
	err := p.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		p.lines.flush()
	}
	return err
}

// WithAttrs implements slog.Handler.
func (p promptly) WithAttrs(attrs []slog.Attr) slog.Handler {
	return promptly{p.Handler.WithAttrs(attrs), p.lines}
}

// WithGroup implements slog.Handler.
func (p promptly) WithGroup(name string) slog.Handler {
	return promptly{p.Handler.WithGroup(name), p.lines}
}

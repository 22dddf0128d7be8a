package daemon

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

// writes keeps what is written, write by write.
type writes struct {
	mu  sync.Mutex
	all []string
}

func (w *writes) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(bytes.Clone(p)))
	return len(p), nil
}

func (w *writes) lines() (counts []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, text := range w.all {
		counts = append(counts, strings.Count(text, "\n"))
	}
	return counts
}

func TestLogLinesAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out writes
		log, _ := newLog(&out, slog.LevelInfo)
		log = log.With("service", "example").WithGroup("g")
		log.Info("a")
		log.Info("b")
		log.Debug("not wanted")
		synctest.Wait()
		assert.Empty(t, out.lines())
		time.Sleep(logWait)
		synctest.Wait()
		assert.Equal(t, []int{2}, out.lines(), "none waits for longer")
		log.Info("c")
		log.Warn("d")
		assert.Equal(t, []int{2, 2}, out.lines(), "a warning does not wait, and nothing overtakes it")
		time.Sleep(time.Second)
		synctest.Wait()
		assert.Equal(t, []int{2, 2}, out.lines())
		for range 1000 {
			log.Info("x", "fill", strings.Repeat("x", 100))
		}
		for _, n := range out.lines()[2:] {
			assert.Less(t, n, 400, "memory is bounded")
		}
		time.Sleep(logWait)
		synctest.Wait()
		total := 0
		for _, n := range out.lines() {
			total += n
		}
		assert.Equal(t, 1004, total)
	})
}

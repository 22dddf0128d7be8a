package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/daemon"
	"github.com/plausible-webhooks/plausible-webhooks/services/api"
	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher"
	"github.com/plausible-webhooks/plausible-webhooks/services/evaluator"
)

// product is the three services' Run functions, each with its configuration.
type product struct {
	common daemon.Config
	runs   []service
}

type service struct {
	name string
	run  func(context.Context, *daemon.Service) error
}

// loadServices reads the three configurations, as each service reads its own in production.
func loadServices(environ []string) (product, error) {
	apiConfig, err1 := daemon.Load[api.Config](environ)
	evaluatorConfig, err2 := daemon.Load[evaluator.Config](environ)
	dispatcherConfig, err3 := daemon.Load[dispatcher.Config](environ)
	return product{
		common: apiConfig.Config,
		runs: []service{
			{"api", func(ctx context.Context, s *daemon.Service) error { return api.Run(ctx, apiConfig, s) }},
			{"evaluator", func(ctx context.Context, s *daemon.Service) error { return evaluator.Run(ctx, evaluatorConfig, s) }},
			{"dispatcher", func(ctx context.Context, s *daemon.Service) error { return dispatcher.Run(ctx, dispatcherConfig, s) }},
		},
	}, errors.Join(err1, err2, err3)
}

// running is the product at work.
type running struct {
	ended  chan error // an end that nobody asked for
	cancel context.CancelFunc
	done   sync.WaitGroup
	closed func()
}

// start runs the services until stop. They share this process's metrics and health address.
func (p product) start(log *slog.Logger) (*running, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	tracers, flush, err := daemon.NewTracers(context.Background(), "local")
	if err != nil {
		return nil, err
	}
	surroundings := make([]*daemon.Service, len(p.runs))
	for i, s := range p.runs {
		surroundings[i] = daemon.NewService(s.name, log, registry, tracers)
	}
	closeHealth, err := daemon.Serve(p.common.MetricsAddr, p.common.Pprof, registry, surroundings...)
	if err != nil {
		return nil, err
	}
	closed := func() {
		closeHealth()
		bounded, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := flush(bounded); err != nil {
			log.Warn("traces were not flushed", "error", err.Error())
		}
	}
	// Not the context of the signal: they stop when their turn comes.
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{ended: make(chan error, len(p.runs)), cancel: cancel, closed: closed}
	for i, s := range p.runs {
		r.done.Go(func() {
			err := s.run(ctx, surroundings[i])
			switch {
			case ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)):
				return
			case err == nil:
				err = errors.New("it ended by itself")
			}
			r.ended <- fmt.Errorf("the service %s stopped: %w", s.name, err)
		})
	}
	return r, nil
}

// drainTime is what the services get to finish what they have begun: the longest attempt and
// its recording.
const drainTime = 45 * time.Second

// stop lets the services drain and returns what went wrong with it.
func (r *running) stop() error {
	defer r.closed()
	r.cancel()
	drained := make(chan struct{})
	go func() {
		r.done.Wait()
		close(drained)
	}()
	select {
	case <-drained:
	case <-time.After(drainTime):
		return fmt.Errorf("the services have not stopped within %s", drainTime)
	}
	select {
	case err := <-r.ended:
		return err
	default:
		return nil
	}
}

// readyTime is how long the services may take until they can work.
const readyTime = 60 * time.Second

// await asks /readyz until every check of every service passes.
func (r *running) await(ctx context.Context, health string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTime, fmt.Errorf("the services are not ready after %s", readyTime))
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		failing, err := ask(ctx, health+"/readyz")
		if err == nil && failing == "" {
			return nil
		}
		select {
		case err := <-r.ended:
			return err
		case <-ctx.Done():
			return fmt.Errorf("%w:\n%s", context.Cause(ctx), failing)
		case <-again.C:
		}
	}
}

// ask returns the checks that fail.
func ask(ctx context.Context, url string) (failing string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err.Error(), nil // not answering yet is one way to be not ready
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil || response.StatusCode == http.StatusOK {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}

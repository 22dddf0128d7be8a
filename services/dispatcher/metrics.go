package dispatcher

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/plausible-webhooks/plausible-webhooks/services/dispatcher/internal/sender"
)

// metrics have no label whose values a webhook's owner chooses: their number is fixed.
type metrics struct {
	attempts    *prometheus.CounterVec
	duration    prometheus.Histogram
	latency     prometheus.Histogram
	batchRows   prometheus.Histogram
	terminated  prometheus.Counter
	duplicates  prometheus.Counter
	claimed     prometheus.Counter
	held        prometheus.Counter
	stale       prometheus.Counter
	storeErrors prometheus.Counter

	circuits       *prometheus.GaugeVec
	circuitsOpened prometheus.Counter
}

func newMetrics(registry prometheus.Registerer, d *dispatcher) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 { return float64(value()) })
	}
	m := &metrics{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dispatcher_attempts_total", Help: "Attempts by outcome: the answer's class, or why there was none.",
		}, []string{"outcome"}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "dispatcher_attempt_duration_seconds", Help: "Duration of attempts.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "dispatcher_publish_to_attempt_seconds", Help: "From a firing's arrival in the stream to its first attempt.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .5, 1, 5, 30, 60, 600},
		}),
		batchRows: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "dispatcher_record_batch_rows", Help: "Outcomes recorded by one statement.", Buckets: []float64{1, 2, 5, 10, 25, 50, 100, 250, 500},
		}),
		terminated: counter("dispatcher_terminated_total", "Messages that can never be delivered."),
		duplicates: counter("dispatcher_duplicates_total", "Messages that were not sent because their delivery was known."),
		claimed:    counter("dispatcher_claimed_total", "Waiting rows that were claimed."),
		held:       counter("dispatcher_held_total", "Deliveries that were put among those that wait for their webhook."),
		stale:      counter("dispatcher_stale_outcomes_total", "Outcomes that came too late to be recorded."),
		circuits: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "dispatcher_circuits", Help: "Webhooks, of all dispatchers, that get nothing for now (open), or whose next delivery is a probe (half_open).",
		}, []string{"state"}),
		circuitsOpened: counter("dispatcher_circuits_opened_total", "Openings of circuits by this dispatcher, those after a failed probe among them."),
		storeErrors:    counter("dispatcher_store_errors_total", "Statements that failed and were tried again."),
	}
	for _, class := range []string{"2xx", "3xx", "4xx", "5xx"} {
		m.attempts.WithLabelValues(class) // a counter that starts at 0 can be watched from the start
	}
	m.attempts.WithLabelValues(egressFault)
	m.attempts.WithLabelValues(string(unrendered))
	for _, class := range sender.Classes {
		m.attempts.WithLabelValues(string(class))
	}
	registry.MustRegister(m.attempts, m.duration, m.latency, m.batchRows, m.terminated, m.duplicates, m.claimed, m.held, m.stale, m.storeErrors, m.circuits, m.circuitsOpened,
		gauge("dispatcher_backlogged_webhooks", "Webhooks for which this dispatcher knows of held deliveries.", d.backlog.size),
		gauge("dispatcher_in_flight", "Deliveries taken and not yet settled.", d.inFlight.size),
		gauge("dispatcher_requests_in_flight", "Requests that hold a place, for firings and for waiting rows.", func() int { return d.fresh.taken() + d.due.taken() }),
		gauge("dispatcher_claims_in_flight", "Places taken by claimed rows.", d.due.taken),
	)
	return m
}

// egressFault is the outcome of a request that the operator's own proxy did not pass on: no attempt.
const egressFault = "egress_fault"

func (m *metrics) attempted(r sender.Result) {
	outcome := strconv.Itoa(r.Status/100) + "xx"
	if r.Status == 0 {
		outcome = string(sender.Protocol)
		if r.Failure != nil {
			outcome = string(r.Failure.Class)
		}
	}
	m.attempts.WithLabelValues(outcome).Inc()
	m.duration.Observe(r.Duration.Seconds())
}

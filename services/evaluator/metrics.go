package evaluator

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	slots        *prometheus.CounterVec
	missed       prometheus.Counter
	slotSeconds  prometheus.Histogram
	lag          prometheus.Gauge
	triggers     prometheus.Gauge
	queries      *prometheus.CounterVec
	querySeconds *prometheus.HistogramVec
	firings      *prometheus.CounterVec
	published    prometheus.Counter
	republished  prometheus.Counter
	leaseHeld    prometheus.Gauge
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	f := promauto.With(registerer)
	return &metrics{
		slots:        f.NewCounterVec(prometheus.CounterOpts{Name: "evaluator_slots_total", Help: "Slots by result: evaluated or failed."}, []string{"result"}),
		missed:       f.NewCounter(prometheus.CounterOpts{Name: "evaluator_slots_missed_total", Help: "Slots that passed without an evaluation of their own."}),
		slotSeconds:  f.NewHistogram(prometheus.HistogramOpts{Name: "evaluator_slot_seconds", Help: "Duration of a slot's evaluation, from the first query to the commit.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 12)}),
		lag:          f.NewGauge(prometheus.GaugeOpts{Name: "evaluator_lag_seconds", Help: "Age of the newest evaluated slot when its evaluation ended."}),
		triggers:     f.NewGauge(prometheus.GaugeOpts{Name: "evaluator_triggers", Help: "Triggers in the newest slot."}),
		queries:      f.NewCounterVec(prometheus.CounterOpts{Name: "evaluator_queries_total", Help: "ClickHouse queries by family and result."}, []string{"family", "result"}),
		querySeconds: f.NewHistogramVec(prometheus.HistogramOpts{Name: "evaluator_query_seconds", Help: "Duration of ClickHouse queries by family.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}, []string{"family"}),
		firings:      f.NewCounterVec(prometheus.CounterOpts{Name: "evaluator_firings_total", Help: "Committed firings by message type."}, []string{"type"}),
		published:    f.NewCounter(prometheus.CounterOpts{Name: "evaluator_published_total", Help: "Firings that JetStream has stored."}),
		republished:  f.NewCounter(prometheus.CounterOpts{Name: "evaluator_republished_total", Help: "Published firings without a delivery that were published again."}),
		leaseHeld:    f.NewGauge(prometheus.GaugeOpts{Name: "evaluator_lease_held", Help: "1 while this replica evaluates."}),
	}
}

func (m *metrics) query(family string, took time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.queries.WithLabelValues(family, result).Inc()
	m.querySeconds.WithLabelValues(family).Observe(took.Seconds())
}

func (m *metrics) slot(took time.Duration, triggers int, lag time.Duration) {
	m.slots.WithLabelValues("evaluated").Inc()
	m.slotSeconds.Observe(took.Seconds())
	m.triggers.Set(float64(triggers))
	m.lag.Set(lag.Seconds())
}

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
	panics       prometheus.Counter
	firings      *prometheus.CounterVec
	published    prometheus.Counter
	republished  prometheus.Counter
	shardsHeld   prometheus.Gauge
	leaseChanges *prometheus.CounterVec

	ingestionSilent   prometheus.Gauge
	ingestionLag      prometheus.Gauge
	ingestionPatience prometheus.Gauge
	systemEvents      *prometheus.CounterVec
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
		panics:       f.NewCounter(prometheus.CounterOpts{Name: "evaluator_trigger_panics_total", Help: "Evaluations of single triggers that failed by a fault of the program."}),
		firings:      f.NewCounterVec(prometheus.CounterOpts{Name: "evaluator_firings_total", Help: "Committed firings by message type."}, []string{"type"}),
		published:    f.NewCounter(prometheus.CounterOpts{Name: "evaluator_published_total", Help: "Firings that JetStream has stored."}),
		republished:  f.NewCounter(prometheus.CounterOpts{Name: "evaluator_republished_total", Help: "Published firings without a delivery that were published again."}),
		shardsHeld:   f.NewGauge(prometheus.GaugeOpts{Name: "evaluator_shards_held", Help: "Shards that this replica evaluates; 16 in all replicas together."}),
		leaseChanges: f.NewCounterVec(prometheus.CounterOpts{Name: "evaluator_lease_changes_total", Help: "Shards that this replica has taken, released to others, or lost to them."}, []string{"change"}),

		ingestionSilent:   f.NewGauge(prometheus.GaugeOpts{Name: "evaluator_ingestion_silent", Help: "1 while no site has events for improbably long, so that nothing is concluded from silence; else 0."}),
		ingestionLag:      f.NewGauge(prometheus.GaugeOpts{Name: "evaluator_ingestion_lag_seconds", Help: "Age of the newest event of all sites at the end of the newest slot."}),
		ingestionPatience: f.NewGauge(prometheus.GaugeOpts{Name: "evaluator_ingestion_patience_seconds", Help: "Age of the newest event from which on ingestion counts as silent; 0 while fewer than two sites have events."}),
		systemEvents:      f.NewCounterVec(prometheus.CounterOpts{Name: "evaluator_system_events_total", Help: "System events that this replica was the first to make, by kind."}, []string{"kind"}),
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

package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/trigger"
)

func ofRanking(ask trigger.Ask) bool { return ask == trigger.AskRanking || ask == trigger.AskNewcomers }

// What an event is ranked by, as the column "of" of its window.
const (
	ofSource = iota
	ofReferrer
	ofCampaign
	ofCountry
	ofPage
	ofEntryPage
	ofViewedPage // of the context of firings: pages of pageviews, by visitors
)

var rankedBy = map[trigger.Dimension]uint8{
	trigger.BySource: ofSource, trigger.ByReferrer: ofReferrer, trigger.ByCampaign: ofCampaign, trigger.ByCountry: ofCountry,
	trigger.ByPage: ofPage, trigger.ByEntryPage: ofEntryPage,
}

// ranked is the value of an event for each of them; an empty one is left out.
var ranked = []struct {
	of      uint8
	value   string
	columns []string
}{
	{ofSource, "e.referrer_source", []string{"referrer_source"}},
	{ofReferrer, "e.referrer", []string{"referrer"}},
	{ofCampaign, "e.utm_campaign", []string{"utm_campaign"}},
	{ofCountry, "toStringCutToZero(toString(e.country_code))", []string{"country_code"}}, // unknown is two NUL bytes
	{ofPage, "if(has(e.prop_keys, 'path'), e.prop_values[indexOf(e.prop_keys, 'path')], e.pathname)",
		[]string{"meta.key AS prop_keys", "meta.value AS prop_values", "pathname"}}, // pages that are not found tell their path
	{ofViewedPage, "if(e.pageview, e.pathname, '')", []string{"pathname", "name = 'pageview' AS pageview"}},
}

func (p *plan) placeRanking(q Question, w window) part {
	of, known := rankedBy[q.By]
	if !known {
		return part{}
	}
	w.by, w.least = of, q.Least
	if of == ofEntryPage {
		return p.put(entryPages, withoutGoal(q), w.from, w, 0)
	}
	return p.put(rankings, q, w.from, w, 0)
}

// countsFirst tells whether a ranking is worth a number before: no value can have more than there are events.
// Most windows of a slot have not enough, and the number comes with others of its kind.
func countsFirst(q Question) bool { return q.Least > 1 && q.By != trigger.ByEntryPage }

// rankWhatMayReach ranks for the questions that counted first and whose windows have enough.
func (e *Events) rankWhatMayReach(ctx context.Context, questions []Question, parts [][2]part, slot time.Time) error {
	p := &plan{events: e, slot: slot}
	for i, q := range questions {
		if !ofRanking(q.Ask) || !countsFirst(q) {
			continue
		}
		enough := parts[i][0].whole().events >= uint64(q.Least)
		parts[i] = [2]part{}
		if enough {
			parts[i][0] = p.placeRanking(q, window{from: seconds(q.Window.From), to: seconds(q.Window.To), step: unbroken})
		}
	}
	return p.run(ctx)
}

func (e *Events) askRankings(ctx context.Context, b *batch) error {
	read := b.eventsOf()
	read.columns = append(read.columns, "user_id")
	value := ""
	for _, r := range ranked {
		if slices.ContainsFunc(b.windows, func(w window) bool { return w.by == r.of }) {
			read.columns = append(read.columns, r.columns...)
			value += fmt.Sprintf("w.of = %d, %s, ", r.of, r.value)
		}
	}
	return b.rank(ctx, fmt.Sprintf(`
		SELECT w.no AS no, multiIf(%s'') AS value, if(any(w.of) = %d, count(), uniq(e.user_id)) AS n%s
		GROUP BY no, value`, value, ofPage, b.rows(read)))
}

// askEntryPages ranks the first pages of the visits that started in the window. Of their states, those
// that were taken back cancel out: a filter may have let only them through.
func (e *Events) askEntryPages(ctx context.Context, b *batch) error {
	read := b.visitsOf("user_id", "session_id", "sign", "entry_page")
	read.within = "e.started >= w.from_time AND e.started < w.to_time"
	return b.rank(ctx, fmt.Sprintf(`
		SELECT w.no AS no, w.page AS value, uniq(w.visitor) AS n
		FROM (
			SELECT w.no AS no, e.entry_page AS page, e.user_id AS visitor, e.session_id AS visit, any(w.least) AS least%s
			GROUP BY no, page, visitor, visit
			HAVING sum(e.sign) > 0
		) AS w
		GROUP BY no, value`, b.rows(read)))
}

// rankedValues is how many values of a window are read: those that the site has seen before are
// taken out of them afterwards, and the rest may still fill a ranking.
const rankedValues = 1000

// rank reads each window's values with the highest n, and how many more there are.
func (b *batch) rank(ctx context.Context, counted string) error {
	statement := fmt.Sprintf(`
		SELECT no, value, n, count() OVER (PARTITION BY no) AS total
		FROM (%s
			HAVING value != '' AND n >= any(w.least)
		)
		ORDER BY no, n DESC, value
		LIMIT %d BY no`, counted, rankedValues)
	return b.ask(ctx, "rankings", statement, func(rows driver.Rows) error {
		var no uint32
		var name string
		var n, total uint64
		if err := rows.Scan(&no, &name, &n, &total); err != nil {
			return err
		}
		r := &b.results[no]
		r.ranking = append(r.ranking, trigger.Ranked{Name: name, Visitors: int64(n)})
		r.more = int(total) - len(r.ranking)
		return nil
	}, columnOf("of", "UInt8", func(no int) uint8 { return b.windows[no].by }), columnOf("least", "UInt64", func(no int) uint64 { return uint64(max(b.windows[no].least, 0)) }))
}

// Top is what stood out in a window: five values of each, by visitors.
type Top struct {
	Sources []trigger.Ranked // without direct traffic
	Pages   []trigger.Ranked // viewed
}

const topValues = 5

// Top ranks the sources and pages of each question's site and filters in its window. Its goal is not
// looked at.
func (e *Events) Top(ctx context.Context, questions []Question) ([]Top, error) {
	tops := make([]Top, len(questions))
	b, parts := newBatch(e, latest(questions)), make([][2]part, len(questions))
	for i, q := range questions {
		w := window{from: seconds(q.Window.From), to: seconds(q.Window.To), step: unbroken}
		if w.from >= w.to || e.Unavailable(q.Filters) != "" {
			continue
		}
		for k, of := range []uint8{ofSource, ofViewedPage} {
			w.by = of
			parts[i][k] = part{b, b.add(withoutGoal(q), w.from, w, 0)}
		}
	}
	if len(b.windows) == 0 {
		return tops, nil
	}
	b.settle()
	if err := e.askRankings(ctx, b); err != nil {
		return nil, err
	}
	top := func(p part) []trigger.Ranked {
		list := p.result().ranking
		return list[:min(len(list), topValues)]
	}
	for i, p := range parts {
		tops[i] = Top{Sources: top(p[0]), Pages: top(p[1])}
	}
	return tops, nil
}

package stream

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/plausible-webhooks/plausible-webhooks/pkg/devstack/devstacktest"
)

// drain is what a digest has told, now that nothing else goes on.
func drain(d *digest) (told [][]string) {
	for {
		synctest.Wait()
		select {
		case ids := <-d.told:
			told = append(told, ids)
		default:
			return told
		}
	}
}

func TestChangesAreToldOnceInAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDigest(time.Second)
		defer d.close()
		d.add("b,a")
		d.add("a,c")
		require.Empty(t, drain(d), "they are waited for that were committed together")
		time.Sleep(gatherChanges)
		require.Equal(t, [][]string{{"a", "b", "c"}}, drain(d))

		for i := range 100 {
			d.add(fmt.Sprint("d", i))
			time.Sleep(5 * time.Millisecond)
		}
		require.Empty(t, drain(d), "half a second later")
		time.Sleep(time.Second)
		told := drain(d)
		require.Len(t, told, 1)
		require.Len(t, told[0], 100)
		time.Sleep(time.Hour)
		require.Empty(t, drain(d), "nothing is told twice")
	})
}

func TestManyChangesAreNotNamed(t *testing.T) {
	var ids []string
	for i := range mostNamed + 1 {
		ids = append(ids, fmt.Sprintf("msg_%03d", i))
	}
	for name, announced := range map[string][]string{
		"announced as many":        {"msg_000", ""},
		"together too many":        {strings.Join(ids[:60], ","), strings.Join(ids[60:], ",")},
		"many, and then a few":     {"", "msg_000"},
		"again and again the same": append(slices.Repeat([]string{strings.Join(ids[:mostNamed], ",")}, 3), "msg_100"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDigest(time.Second)
				defer d.close()
				for _, a := range announced {
					d.add(a)
				}
				time.Sleep(gatherChanges)
				require.Equal(t, [][]string{nil}, drain(d))
				d.add("msg_200")
				time.Sleep(time.Second)
				require.Equal(t, [][]string{{"msg_200"}}, drain(d), "it begins anew")
			})
		})
	}
}

func TestASlowReaderLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDigest(time.Second)
		for i := range 10 {
			d.add(fmt.Sprint("d", i))
			time.Sleep(time.Minute)
		}
		require.Equal(t, []string{"d0"}, <-d.told)
		time.Sleep(time.Second)
		require.Equal(t, [][]string{{"d1", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d9"}}, drain(d))
		d.add("late")
		d.close()
		d.close()
		d.add("later")
		time.Sleep(time.Hour)
		_, open := <-d.told
		require.False(t, open)
	})
}

func TestDeliveriesAreWatchedOverNATS(t *testing.T) {
	url := devstacktest.NATS(t)
	api, dispatcher := connection(t, url), connection(t, url)
	changed, stop, err := WatchDeliveries(api, "wh_1", time.Millisecond)
	require.NoError(t, err)
	require.NoError(t, AnnounceDeliveries(dispatcher, "wh_2", []string{"msg_other"}))
	require.NoError(t, AnnounceDeliveries(dispatcher, "wh_1", []string{"msg_1", "msg_2"}))
	require.Equal(t, []string{"msg_1", "msg_2"}, <-changed, "the subscription is known when the watch begins")
	require.NoError(t, AnnounceDeliveries(dispatcher, "wh_1", slices.Repeat([]string{"msg"}, mostNamed+1)))
	require.Nil(t, <-changed)
	require.NoError(t, AnnounceDeliveries(dispatcher, "wh_1", nil))
	require.Nil(t, <-changed, "which ones is not told")

	require.NoError(t, api.ForceReconnect())
	require.Nil(t, <-changed, "nobody knows what changed during the absence")
	require.NoError(t, AnnounceDeliveries(dispatcher, "wh_1", []string{"msg_3"}))
	require.Equal(t, []string{"msg_3"}, <-changed)
	stop()
	_, open := <-changed
	require.False(t, open)
}

// BenchmarkAnnounceDeliveries is what a commit of 500 outcomes costs more for being announced, while nobody watches.
func BenchmarkAnnounceDeliveries(b *testing.B) {
	nc := connection(b, devstacktest.NATS(b))
	const batch = 500
	for _, webhooks := range []int{1, 20, batch} {
		b.Run(fmt.Sprintf("webhooks=%d", webhooks), func(b *testing.B) {
			ids := slices.Repeat([]string{"msg_3nkheexvnelbnckzip3vm36wmu"}, batch/webhooks)
			for b.Loop() {
				for w := range webhooks {
					require.NoError(b, AnnounceDeliveries(nc, fmt.Sprintf("wh_%026d", w), ids))
				}
			}
			require.NoError(b, nc.Flush())
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/delivery")
		})
	}
}

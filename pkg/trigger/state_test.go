package trigger

import (
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// Every field counts, also those that are added later: each is set alone, to something else than nothing.
func TestMachinesThatDifferAreNotEqual(t *testing.T) {
	assert.True(t, new(Machine).Equal(new(Machine)))
	forEachField(t, func() reflect.Value { return reflect.ValueOf(new(Machine)).Elem() }, func(v reflect.Value) (bool, string) {
		machine := v.Interface().(Machine)
		return machine.Equal(&machine) && !machine.Equal(new(Machine)) && !new(Machine).Equal(&machine), "Machine"
	})
	forEachField(t, func() reflect.Value { return reflect.ValueOf(new(Episode)).Elem() }, func(v reflect.Value) (bool, string) {
		episode := v.Interface().(Episode)
		with := &Machine{Episode: &episode}
		return with.Equal(with) && !with.Equal(&Machine{Episode: &Episode{}}), "Episode"
	})
	forEachField(t, func() reflect.Value { return reflect.ValueOf(new(Bucket)).Elem() }, func(v reflect.Value) (bool, string) {
		with := &Machine{Counted: []Bucket{v.Interface().(Bucket)}}
		return with.Equal(with) && !with.Equal(&Machine{Counted: []Bucket{{}}}), "Bucket"
	})
	forEachField(t, func() reflect.Value { return reflect.ValueOf(new(Counter)).Elem() }, func(v reflect.Value) (bool, string) {
		with := &Machine{Counters: []Counter{v.Interface().(Counter)}}
		return with.Equal(with) && !with.Equal(&Machine{Counters: []Counter{{}}}), "Counter"
	})
}

func forEachField(t *testing.T, fresh func() reflect.Value, differs func(reflect.Value) (bool, string)) {
	t.Helper()
	for i := range fresh().NumField() {
		v := fresh()
		field := v.Field(i)
		switch at := time.Unix(1_700_000_000, 0); field.Interface().(type) {
		case time.Time:
			field.Set(reflect.ValueOf(at))
		case *time.Time:
			field.Set(reflect.ValueOf(&at))
		case *Episode:
			field.Set(reflect.ValueOf(&Episode{}))
		case map[string]Spell:
			field.Set(reflect.ValueOf(map[string]Spell{"a": {}}))
		case []uint64:
			field.Set(reflect.ValueOf([]uint64{7}))
		case []Bucket:
			field.Set(reflect.ValueOf([]Bucket{{}}))
		case []Counter:
			field.Set(reflect.ValueOf([]Counter{{}}))
		default:
			switch field.Kind() {
			case reflect.Bool:
				field.SetBool(true)
			case reflect.Float64:
				field.SetFloat(1)
			case reflect.Uint64:
				field.SetUint(1)
			default:
				field.SetInt(1)
			}
		}
		noticed, of := differs(v)
		assert.True(t, noticed, "%s.%s is compared", of, v.Type().Field(i).Name)
	}
}

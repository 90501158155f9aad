package dom0

import (
	"reflect"
	"testing"
)

func TestVolumesAreReadAsTheyAreSent(t *testing.T) {
	got := volume(map[string]any{"name": "private", "pool": "varlibqubes", "size": int64(2 << 30), "usage": int64(7),
		"save_on_stop": true, "revisions": []string{"1@2026-03-13T09:30:00Z"}, "kept_revisions": []string{"1@2026-03-13T09:30:00Z"}})
	want := Volume{Name: "private", Pool: "varlibqubes", Size: 2 << 30, Usage: 7, Keeps: true, Revisions: []string{"1@2026-03-13T09:30:00Z"}, Kept: []string{"1@2026-03-13T09:30:00Z"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := volume(map[string]any{"name": 7, "size": int64(-1), "usage": "much"}); !reflect.DeepEqual(got, Volume{}) {
		t.Errorf("values of other types became %+v", got)
	}
}

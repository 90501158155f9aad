package boundary

import (
	"os"
	"strings"
	"testing"
)

// The document's table is made from the one that is tested.
func TestThreatModelHasTheTable(t *testing.T) {
	const (
		file  = "../../../docs/THREAT-MODEL.md"
		begin = "<!-- the table of daemon/engine/boundary; UPDATE_GOLDEN=1 writes it anew -->\n"
		end   = "<!-- end of the table -->\n"
	)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", file)
	}
	if table == Table() {
		return
	}
	if os.Getenv("UPDATE_GOLDEN") == "" {
		t.Fatalf("the table of %s is not the one of this package; UPDATE_GOLDEN=1 writes it anew", file)
	}
	if err := os.WriteFile(file, []byte(before+begin+Table()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestAttemptsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range Attempts {
		if a.Name == "" || a.Group == "" || a.Means == "" || seen[a.Name] {
			t.Errorf("%+v lacks something, or is there twice", a)
		}
		seen[a.Name] = true
		for _, r := range []Result{a.Crun.Root, a.Crun.User, a.Runsc.Root, a.Runsc.User} {
			if (r.Verdict == Refused) != (r.Why == "") {
				t.Errorf("%s: %q and its reason %q do not fit", a.Name, r.Verdict, r.Why)
			}
		}
	}
}

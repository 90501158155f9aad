package supervise

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"cubicle/guid/x11/x11test"
)

func TestParseRules(t *testing.T) {
	for data, want := range map[string]string{
		"evdev\x00pc105\x00us\x00\x00\x00":                         "us++",
		"evdev\x00pc105\x00de,us\x00nodeadkeys,\x00grp:toggle\x00": "de+nodeadkeys+grp:toggle",
		"evdev\x00pc105\x00fr":                                     "fr++",
		"":                                                         "",
		"evdev\x00pc105\x00\x00dvorak\x00\x00":                     "",
	} {
		if got := parseRules(data); got != want {
			t.Errorf("%q is %q, want %q", data, got, want)
		}
	}
}

func TestQubesGetDom0sKeyboard(t *testing.T) {
	display := x11test.Start(t, 100, 100)
	x, other := x11test.Dial(t, display), x11test.Dial(t, display)
	atoms, err := other.Atoms(rulesNames, "STRING")
	if err != nil {
		t.Fatal(err)
	}
	change := func(layout string) {
		t.Helper()
		other.SetProperty(other.Root(), atoms[rulesNames], atoms["STRING"], 8, []byte("evdev\x00pc105\x00"+layout+"\x00\x00\x00"))
		if err := other.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	change("us")
	told := make(chan string, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		Keyboard{Log: slog.New(slog.DiscardHandler), Set: func(_ context.Context, layout string) error {
			told <- layout
			if layout == "xx++" {
				return errors.New("no such layout")
			}
			return nil
		}}.Follow(t.Context(), x)
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Fatalf("told %q, want %q", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("never told %q", want)
		}
	}
	expect("us++")
	change("us")
	change("de")
	expect("de++")
	change("xx")
	expect("xx++")
	change("xx") // what was refused is tried again
	expect("xx++")
	x.Close()
	<-done
}

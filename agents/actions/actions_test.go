package actions

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cubicle/agents/tools"
)

func TestLayDown(t *testing.T) {
	dir := t.TempDir()
	for range 2 {
		if err := LayDown(dir); err != nil {
			t.Fatal(err)
		}
	}
	formats := map[string]int{}
	for _, pattern := range []string{"share/file-manager/actions/*.desktop", "share/nemo/actions/*.nemo_action", "share/kio/servicemenus/*.desktop", "xdg/Thunar/uca.xml"} {
		paths, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			formats[pattern] += strings.Count(string(b), "qvm-copy --gui %F")
		}
	}
	if len(formats) != 4 {
		t.Errorf("%v", formats)
	}
	for pattern, n := range formats {
		if n != 1 {
			t.Errorf("%s offers %d times to copy files", pattern, n)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "xdg/Thunar/uca.xml"))
	if err != nil {
		t.Fatal(err)
	}
	var back struct {
		Entries []struct {
			ID          string    `xml:"unique-id"`
			Directories *struct{} `xml:"directories"`
			Text        *struct{} `xml:"text-files"`
		} `xml:"action"`
	}
	if err := xml.Unmarshal(b, &back); err != nil || len(back.Entries) != len(actions) {
		t.Fatalf("%+v, %v", back, err)
	}
	for i, e := range back.Entries {
		if (e.Directories != nil) != actions[i].many || e.Text == nil {
			t.Errorf("%+v", e)
		}
	}
}

// TestCommands: what the entries call is there, with those options.
func TestCommands(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, a := range actions {
		words := strings.Fields(a.command)
		if status := tools.Run(t.Context(), tools.Where{Stdin: null, Stdout: null, Stderr: null}, words[0], append(words[1:], "--help")); status != 0 {
			t.Errorf("%s: status %d", a.command, status)
		}
	}
}

package actions

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cubicle/agents/qrexec/desktop"
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
	for _, pattern := range []string{"Thunar/sendto/*.desktop", "nemo/actions/*.nemo_action", "kio/servicemenus/*.desktop", "kservices5/ServiceMenus/*.desktop"} {
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
	// Thunar's are desktop entries as any other.
	e, err := desktop.Read(filepath.Join(dir, "Thunar/sendto/qubes-open-in-qube.desktop"))
	if err != nil {
		t.Fatal(err)
	}
	argv, err := e.ArgvWith("/home/user/a b")
	if err != nil || strings.Join(argv, "|") != "qvm-open-in-vm|--gui|@default|/home/user/a b" {
		t.Errorf("%q, %v", argv, err)
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

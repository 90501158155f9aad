package main

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// Whether one command is known or all of them, the same is understood.
func TestEachCommandIsUnderstoodAlone(t *testing.T) {
	for _, c := range commands() {
		args := []string{c.name}
		if c.name == "client-vm" {
			args = append(args, "--prefix=data", "work", "qubes.Filecopy", "/bin/program", "--of-its-own")
		}
		parser, err := newParser(&flags{}, args)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		k, err := parser.Parse(args)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := k.Selected().Name; got != c.name {
			t.Errorf("%s is taken for %s", c.name, got)
		}
	}
}

// The short way reads a plain call as the parser does, and leaves it the rest.
func TestPlainCall(t *testing.T) {
	for _, c := range []struct {
		args  string
		plain bool
	}{
		{"client-vm work t.Service+arg", true},
		{"client-vm @default t.Service", true},
		{"client-vm work t.Service /bin/program", true},
		{"client-vm work t.Service /bin/program --of-its-own -t x", true},
		{"client-vm -t work t.Service", false},
		{"client-vm work --prefix=data t.Service", false},
		{"client-vm work t.Service -T", false},
		{"client-vm -- work t.Service", false},
		{"client-vm work", false},
		{"client-vm --help", false},
		{"qrexec work t.Service", false},
		{"", false},
	} {
		args := strings.Fields(c.args)
		got, plain := plainCall(args)
		if plain != c.plain {
			t.Errorf("%q: plain is %t", c.args, plain)
			continue
		}
		if !plain {
			continue
		}
		parser, err := newParser(&flags{}, args)
		if err != nil {
			t.Fatal(err)
		}
		k, err := parser.Parse(args)
		if err != nil {
			t.Fatalf("%q: %v", c.args, err)
		}
		if want := k.Selected().Target.Interface(); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, the parser has %+v", c.args, got, want)
		}
	}
}

func TestHelpNamesTheCommands(t *testing.T) {
	parser, err := newParser(&flags{}, []string{"--help"})
	if err != nil {
		t.Fatal(err)
	}
	var help bytes.Buffer
	parser.Stdout, parser.Exit = &help, func(int) {}
	_, _ = parser.Parse([]string{"--help"}) // it would exit
	for _, c := range commands() {
		if strings.Contains(help.String(), "\n  "+c.name+" ") == c.hidden {
			t.Errorf("the help on %s (hidden: %t):\n%s", c.name, c.hidden, help.String())
		}
	}
}

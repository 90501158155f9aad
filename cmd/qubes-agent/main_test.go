package main

import (
	"bytes"
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

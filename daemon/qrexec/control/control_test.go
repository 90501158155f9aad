package control

import (
	"bytes"
	"errors"
	"io"
	"net"
	"reflect"
	"sync"
	"testing"
)

func TestMessages(t *testing.T) {
	var b bytes.Buffer
	c := NewConn(&b)
	sent := []Message{
		{Kind: Hello},
		{Kind: Up, Qube: &Qube{Domain: 0x8001, Name: "work", UUID: "u", DefaultUser: "user", LinkDir: "/run/x"}},
		{Kind: Listening, Domain: 0x8001, Error: "no room"},
		{Kind: Ready, Domain: 0x8001, Version: 4},
	}
	for _, m := range sent {
		if err := c.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if n := bytes.Count(b.Bytes(), []byte("\n")); n != len(sent) {
		t.Errorf("%d lines for %d messages", n, len(sent))
	}
	for _, want := range sent {
		if got, err := c.Receive(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if _, err := c.Receive(); err != io.EOF {
		t.Errorf("after the last: %v", err)
	}
}

func TestConcurrentSends(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	c := NewConn(a)
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for range 50 {
				if err := c.Send(Message{Kind: Lost, Domain: 7}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	go func() { senders.Wait(); a.Close() }()
	r := NewConn(b)
	n := 0
	for {
		m, err := r.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || m.Kind != Lost || m.Domain != 7 {
			t.Fatal(m, err)
		}
		n++
	}
	if n != 400 {
		t.Errorf("%d messages", n)
	}
}

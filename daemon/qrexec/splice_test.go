package qrexec

import (
	"bytes"
	"io"
	"net"
	"os"
	"testing"
)

// TestRelayKeepsHalfCloses and passes all bytes.
func TestRelayKeepsHalfCloses(t *testing.T) {
	pair := func() (*net.UnixConn, *net.UnixConn) {
		t.Helper()
		a, b, err := pairFiles()
		if err != nil {
			t.Fatal(err)
		}
		x, err := fileConn(a)
		if err != nil {
			t.Fatal(err)
		}
		y, err := fileConn(b)
		if err != nil {
			t.Fatal(err)
		}
		return x, y
	}
	a, guest := pair()
	host, b := pair()
	ended := make(chan struct{})
	go func() { new(pipes).relay(guest, host); close(ended) }()
	long := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = a.Write(long)
		_ = a.CloseWrite()
	}()
	got, err := io.ReadAll(b)
	if err != nil || !bytes.Equal(got, long) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if _, err := b.Write([]byte("the other way is open")); err != nil { // after the half-close
		t.Fatal(err)
	}
	b.Close()
	if got, err := io.ReadAll(a); string(got) != "the other way is open" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	a.Close()
	<-ended
}

// TestRelayDeliversBeforeTheEnd: what a side sent before it closed arrives,
// even when it left input unread (which resets a UNIX stream).
func TestRelayDeliversBeforeTheEnd(t *testing.T) {
	for range 50 {
		af, gf, err := pairFiles()
		if err != nil {
			t.Fatal(err)
		}
		hf, bf, err := pairFiles()
		if err != nil {
			t.Fatal(err)
		}
		var c [4]*net.UnixConn
		for i, f := range []*os.File{af, gf, hf, bf} {
			if c[i], err = fileConn(f); err != nil {
				t.Fatal(err)
			}
		}
		ended := make(chan struct{})
		go func() { new(pipes).relay(c[1], c[2]); close(ended) }()
		if _, err := c[3].Write(make([]byte, 100000)); err != nil {
			t.Fatal(err)
		}
		if _, err := c[0].Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		c[0].Close()
		if got, err := io.ReadAll(c[3]); string(got) != "last words" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
		c[3].Close()
		<-ended
	}
}

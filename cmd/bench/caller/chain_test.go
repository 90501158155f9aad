package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestAChainPassesBytesAndTheirEnd(t *testing.T) {
	c, err := startChain("/bin/cat", "/usr/bin/tr a-z A-Z", "/bin/cat")
	if err != nil {
		t.Fatal(err)
	}
	defer c.out.Close()
	sent := strings.Repeat("pixels and keys ", 1000)
	go func() {
		_, _ = io.WriteString(c.in, sent) // what is lost is missed below
		c.in.CloseWrite()
	}()
	got, err := io.ReadAll(c.out)
	if err != nil || string(got) != strings.ToUpper(sent) {
		t.Errorf("%d bytes came of %d: %v", len(got), len(sent), err)
	}
	if err := c.wait(); err != nil {
		t.Error(err)
	}
}

func TestAChainTellsWhichProgramFailed(t *testing.T) {
	c, err := startChain("/bin/cat", "/bin/false")
	if err != nil {
		t.Fatal(err)
	}
	defer c.out.Close()
	c.in.Close()
	if err := c.wait(); err == nil || !strings.Contains(err.Error(), "/bin/false") {
		t.Errorf("the chain says %v", err)
	}
	if _, err := startChain("/bin/cat", "/there/is/no/such/program"); err == nil {
		t.Error("a program that is not there was started")
	}
}

func TestPassCopiesWhole(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 20_000)
	var got bytes.Buffer
	if err := pass(&got, bytes.NewReader(data), blockSize); err != nil || !bytes.Equal(got.Bytes(), data) {
		t.Errorf("%d bytes of %d: %v", got.Len(), len(data), err)
	}
}

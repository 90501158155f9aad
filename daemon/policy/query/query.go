// Package query is the conversation on the socket of the policy daemon
// (spec/qrexec.md §10, paths.Root.Policyd): whether a call may be made is
// asked by a Request and told by an Answer. Who asks uses Ask; who answers
// uses ReadRequest, Of and Answer.String.
package query

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"cubicle/daemon/policy"
	"cubicle/daemon/vchan"
)

// Request is a call that somebody wants to make.
type Request struct {
	Source  string
	Target  string // as requested; may be empty
	Service string // NAME or NAME+ARGUMENT
	// RequestedSource is the remote qube for which a relay calls; nil where
	// the caller's protocol has no such field.
	RequestedSource *string
	AssumeYes       bool // a person who is asked says yes
	JustEvaluate    bool // the call is not made
}

// Limits of the texts in bytes. An answer is upstream's (spec/qrexec.md §10).
const (
	maxRequest = 128 << 10
	maxAnswer  = 4096
)

// The keys of a request.
const (
	keySource          = "source"
	keyTarget          = "intended_target"
	keyService         = "service_and_arg"
	keyRequestedSource = "requested_source"
	keyAssumeYes       = "assume_yes_for_ask"
	keyJustEvaluate    = "just_evaluate"
)

// Bytes is the request as it is sent.
func (r Request) Bytes() ([]byte, error) {
	var b strings.Builder
	put := func(key, value string) { b.WriteString(key + "=" + value + "\n") }
	put(keySource, r.Source)
	put(keyTarget, r.Target)
	put(keyService, r.Service)
	if r.RequestedSource != nil {
		put(keyRequestedSource, *r.RequestedSource)
	}
	if r.AssumeYes {
		put(keyAssumeYes, "yes")
	}
	if r.JustEvaluate {
		put(keyJustEvaluate, "yes")
	}
	fields := 3
	for _, there := range []bool{r.RequestedSource != nil, r.AssumeYes, r.JustEvaluate} {
		if there {
			fields++
		}
	}
	if strings.Count(b.String(), "\n") != fields {
		return nil, errors.New("question to the policy daemon: a name has a line's end in it")
	}
	b.WriteByte('\n')
	return []byte(b.String()), nil
}

// ReadRequest reads a request up to its empty line. After an error nothing is
// to be answered.
func ReadRequest(in io.Reader) (Request, error) {
	lines, err := readLines(bufio.NewReader(io.LimitReader(in, maxRequest)), true)
	if err != nil {
		return Request{}, fmt.Errorf("question to the policy daemon: %w", err)
	}
	var r Request
	given := map[string]bool{}
	for _, line := range lines {
		key, value, ok := strings.Cut(line, "=")
		if !ok || given[key] {
			return Request{}, fmt.Errorf("question to the policy daemon: %.40q is no key=value, or stands twice", line)
		}
		given[key] = true
		switch key {
		case keySource:
			r.Source = value
		case keyTarget:
			r.Target = value
		case keyService:
			r.Service = value
		case keyRequestedSource:
			r.RequestedSource = &value
		case keyAssumeYes:
			r.AssumeYes, err = yesNo(value)
		case keyJustEvaluate:
			r.JustEvaluate, err = yesNo(value)
		default:
			err = errors.New("no such key")
		}
		if err != nil {
			return Request{}, fmt.Errorf("question to the policy daemon: %.40q: %w", line, err)
		}
	}
	for _, key := range []string{keySource, keyTarget, keyService} {
		if !given[key] {
			return Request{}, fmt.Errorf("question to the policy daemon: %s is missing", key)
		}
	}
	return r, nil
}

func yesNo(value string) (bool, error) {
	if value != "yes" && value != "no" {
		return false, errors.New("yes or no is expected")
	}
	return value == "yes", nil
}

// readLines reads lines up to an empty one, or to the end where no empty one
// is needed.
func readLines(in *bufio.Reader, needsEmpty bool) ([]string, error) {
	var lines []string
	for {
		line, err := in.ReadString('\n')
		text, whole := strings.CutSuffix(line, "\n")
		switch {
		case err == io.EOF && !needsEmpty && line == "":
			return lines, nil
		case err == io.EOF || err == nil && !whole:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case text == "":
			return lines, nil
		}
		lines = append(lines, text)
	}
}

// Answer tells what becomes of a call. All but Allowed is of an allowed one.
type Answer struct {
	Allowed         bool
	User            string // DEFAULT: the target's default
	Target          string // qube, dom0, @dispvm:BASE or uuid:UUID
	TargetUUID      string // uuid:UUID or @dispvm:uuid:UUID; empty for dom0
	Autostart       bool
	RequestedTarget string // normalised; @default for none
	Service         string // to call instead, of a remote qube; else empty
	PolicySource    string // name to show as the caller, of a relay; else empty
}

// Of is the answer that a decision is, once nobody is to be asked any more.
func Of(d policy.Decision) Answer {
	if d.Action != policy.Allow {
		return Answer{}
	}
	a := Answer{Allowed: true, User: d.User, Target: d.Target, TargetUUID: d.TargetUUID, Autostart: d.Autostart, RequestedTarget: d.Requested,
		Service: d.Service, PolicySource: d.PolicySource}
	if a.User == "" {
		a.User = "DEFAULT"
	}
	return a
}

// Evaluated is the answer to a request with JustEvaluate: nothing but whether.
func Evaluated(d policy.Decision, assumeYes bool) Answer {
	return Answer{Allowed: d.Permits(assumeYes)}
}

// String is the answer as it is sent.
func (a Answer) String() string {
	var b strings.Builder
	put := func(key, value string) {
		if value != "" {
			b.WriteString(key + "=" + value + "\n")
		}
	}
	if !a.Allowed {
		return "result=deny\n"
	}
	put("result", "allow")
	if a.Target == "" {
		return b.String() // evaluated only
	}
	put("user", a.User)
	put("target", a.Target)
	put("target_uuid", a.TargetUUID)
	put("autostart", map[bool]string{true: "True", false: "False"}[a.Autostart])
	put("requested_target", a.RequestedTarget)
	put("service", a.Service)
	put("policy_source", a.PolicySource)
	return b.String()
}

// ParseAnswer reads an answer; evaluated: to a request with JustEvaluate.
func ParseAnswer(text string, evaluated bool) (Answer, error) {
	fail := func(why string) (Answer, error) {
		return Answer{}, fmt.Errorf("answer of the policy daemon %.80q: %s", text, why)
	}
	if len(text) > maxAnswer || strings.ContainsRune(text, 0) {
		return fail("too long, or with a zero byte")
	}
	lines, err := readLines(bufio.NewReader(strings.NewReader(text)), false)
	if err != nil {
		return fail("it is cut off")
	}
	values := map[string]string{}
	for _, line := range lines {
		key, value, ok := strings.Cut(line, "=")
		if _, twice := values[key]; !ok || twice {
			return fail("a line is no key=value, or stands twice")
		}
		values[key] = value
	}
	needed := []string{"user", "target", "autostart", "requested_target"}
	switch result := values["result"]; {
	case result == "deny":
		for _, key := range needed {
			if _, there := values[key]; there {
				return fail("a denial has no " + key)
			}
		}
		return Answer{}, nil
	case result != "allow":
		return fail("there is no result")
	case evaluated:
		return Answer{Allowed: true}, nil
	}
	for _, key := range needed {
		if values[key] == "" {
			return fail(key + " is missing")
		}
	}
	if a := values["autostart"]; a != "True" && a != "False" {
		return fail("autostart is True or False")
	}
	return Answer{true, values["user"], values["target"], values["target_uuid"], values["autostart"] == "True", values["requested_target"],
		values["service"], values["policy_source"]}, nil
}

// Ask asks the policy daemon at a socket. It answers when the policy, and a
// person where that wants one, has decided.
func Ask(ctx context.Context, socket string, r Request) (Answer, error) {
	raw, err := r.Bytes()
	if err != nil {
		return Answer{}, err
	}
	conn, err := vchan.DialOnce(socket)
	if err != nil {
		return Answer{}, fmt.Errorf("policy daemon at %s: %w", socket, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write(raw); err != nil {
		return Answer{}, fmt.Errorf("ask the policy daemon: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(conn, maxAnswer+1))
	if ctx.Err() != nil {
		return Answer{}, ctx.Err()
	}
	if err != nil {
		return Answer{}, fmt.Errorf("ask the policy daemon: %w", err)
	}
	return ParseAnswer(string(text), r.JustEvaluate)
}

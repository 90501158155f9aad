package policy

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Result is what Explain says of a call in a word.
type Result string

// The results besides the actions.
const (
	Failed      Result = "error"        // the question is not a call, or files of the policy cannot be read
	SyntaxFault Result = "syntax-error" // a line of the policy is none: every call is denied
)

// Question is a call to explain.
type Question struct {
	Source  string `json:"source"`
	Target  string `json:"target"`
	Service string `json:"service"` // NAME or NAME+ARGUMENT
	// RequestedSource is the remote qube for which a relay calls.
	RequestedSource string `json:"requested_source"`
}

// Explanation is what becomes of a call, and why. As JSON it says null where
// it has nothing to say.
type Explanation struct {
	Result        Result
	Target        string   // of an allowed call
	User          string   // of an allowed call or one to ask about; empty: the target's default
	Autostart     *bool    // of those, too
	Notify        bool     // the person is told
	Service       string   // what is called instead, for a remote qube
	Rule          string   // FILE:LINE
	Targets       []string // sorted; what would be offered
	DefaultTarget string
	Reason        string // the code of a denial, or the text of an error

	rule *Rule
	why  Reason
}

// MarshalJSON writes the keys that tools rely on, all of them each time. The
// user of an allowed call is DEFAULT where no rule names one, as upstream's
// policy daemon says it (spec/qrexec.md §10).
func (e Explanation) MarshalJSON() ([]byte, error) {
	orNull := func(text string) *string {
		if text == "" {
			return nil
		}
		return &text
	}
	user := e.User
	if user == "" && e.Result == Result(Allow) {
		user = "DEFAULT"
	}
	return json.Marshal(struct {
		Result        Result   `json:"result"`
		Target        *string  `json:"target"`
		User          *string  `json:"user"`
		Autostart     *bool    `json:"autostart"`
		Notify        bool     `json:"notify"`
		Rule          *string  `json:"rule"`
		Targets       []string `json:"targets"`
		DefaultTarget *string  `json:"default_target"`
		Reason        *string  `json:"reason"`
		Service       string   `json:"service,omitempty"`
	}{e.Result, orNull(e.Target), orNull(user), e.Autostart, e.Notify, orNull(e.Rule), e.Targets, orNull(e.DefaultTarget), orNull(e.Reason), e.Service})
}

// Explain decides a call and says why.
func Explain(p *Policy, s *System, q Question) Explanation {
	name, argument, _ := strings.Cut(q.Service, "+")
	argument = "+" + argument
	if err := CheckService(name, argument); err != nil {
		return Explanation{Result: Failed, Reason: err.Error()}
	}
	d := p.Decide(s, Request{name, argument, q.Source, q.Target, q.RequestedSource})
	e := Explanation{Result: Result(d.Action), Target: d.Target, User: d.User, Notify: d.Notify, Service: d.Service, Targets: d.Targets,
		DefaultTarget: d.DefaultTarget, Reason: string(d.Reason), rule: d.Rule, why: d.Reason}
	if d.Action != Deny {
		e.Autostart = &d.Autostart
	}
	if d.Rule != nil {
		e.Rule = d.Rule.Where()
	}
	if d.Reason == BadTarget || d.Reason == UnknownSource {
		e.Result = Failed
	}
	return e
}

// String says it to people, in a few lines.
func (e Explanation) String() string {
	var b strings.Builder
	switch e.Result {
	case Result(Allow):
		fmt.Fprintf(&b, "allow, to %s", e.Target)
		if e.Service != "" {
			fmt.Fprintf(&b, " as %s", e.Service)
		}
	case Result(Ask):
		fmt.Fprintf(&b, "ask: %s", strings.Join(e.Targets, ", "))
		if e.DefaultTarget != "" {
			fmt.Fprintf(&b, "\n%s is proposed", e.DefaultTarget)
		}
	case Result(Deny):
		fmt.Fprintf(&b, "deny: %s", e.why.Explain())
	default:
		fmt.Fprintf(&b, "%s: %s", e.Result, e.Reason)
		if text := e.why.Explain(); text != "" {
			fmt.Fprintf(&b, ": %s", text)
		}
	}
	if e.User != "" {
		fmt.Fprintf(&b, "\nas user %s", e.User)
	}
	if e.Autostart != nil && !*e.Autostart {
		b.WriteString("\nonly a qube that runs already")
	}
	if e.Notify {
		b.WriteString("\nthe person is told")
	}
	if e.rule != nil {
		fmt.Fprintf(&b, "\nby %s\n    %s", e.rule.Where(), e.rule.Text)
	}
	return b.String()
}

// ExplainAll reads questions as JSON, one a line, and writes their
// explanations, one a line. With a policy that could not be loaded (problem)
// the answer is always what Fault says.
func ExplainAll(p *Policy, problem error, s *System, questions io.Reader, answers io.Writer) error {
	const maxLine = 64 << 10
	in := bufio.NewScanner(questions)
	in.Buffer(nil, maxLine)
	out := bufio.NewWriter(answers)
	write := json.NewEncoder(out)
	write.SetEscapeHTML(false)
	for in.Scan() {
		line := strings.TrimSpace(in.Text())
		if line == "" {
			continue
		}
		var q Question
		var e Explanation
		switch err := json.Unmarshal([]byte(line), &q); {
		case err != nil:
			e = Explanation{Result: Failed, Reason: err.Error()}
		case problem != nil:
			e = Fault(problem)
		default:
			e = Explain(p, s, q)
		}
		if err := write.Encode(e); err != nil {
			return err
		}
	}
	return errors.Join(in.Err(), out.Flush())
}

// Fault explains every call under a policy that could not be loaded: a
// SyntaxFault where a line is wrong, Failed where a whole file or folder is.
func Fault(problem error) Explanation {
	e := Explanation{Result: Failed, Reason: problem.Error()}
	all, _ := errors.AsType[Errors](problem)
	for i, one := range all {
		if i == 0 || one.Line > 0 && e.Result == Failed {
			e.Rule, e.Reason = fmt.Sprintf("%s:%d", one.File, one.Line), one.Err.Error()
		}
		if one.Line > 0 {
			e.Result = SyntaxFault
		}
	}
	return e
}

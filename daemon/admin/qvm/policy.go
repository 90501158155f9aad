package qvm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"cubicle/daemon/admin/client"
	"cubicle/daemon/policy"
)

type policyTool struct {
	verbosity
	Explain policyExplain `cmd:"" help:"Tell what becomes of a call, and by which rule."`
	List    policyList    `cmd:"" aliases:"ls" help:"List the files of the policy."`
	Get     policyGet     `cmd:"" help:"Print a file."`
	Edit    policyEdit    `cmd:"" help:"Change a file in an editor. What is no policy is not taken."`
	Replace policyReplace `cmd:"" help:"Replace a file by another one or by standard input."`
	Remove  policyRemove  `cmd:"" aliases:"rm" help:"Remove a file."`
	Lint    policyLint    `cmd:"" help:"Look for faults."`
	Graph   policyGraph   `cmd:"" help:"Draw who may reach whom, in the language of Graphviz or as SVG."`
}

func (t *policyTool) run(ctx context.Context, e *env) error {
	return e.command.(tool).run(ctx, e)
}

// policyPlace is where a tool reads the policy and the qubes from.
type policyPlace struct {
	Policy     string `placeholder:"DIR" help:"Read the policy from this folder, or from policy.d, run and legacy in it (default: this system's)." complete:"file"`
	SystemInfo string `name:"system-info" placeholder:"FILE" help:"What internal.GetSystemInfo answered (default: ask qubesd)." complete:"file"`
}

// dirs are the folders of the policy.
func (p policyPlace) dirs(e *env) (policy.Dirs, error) {
	if p.Policy == "" {
		kept, runtime, legacy := e.root.PolicyFiles()
		return policy.Dirs{Policy: []string{kept, runtime}, Legacy: legacy}, nil
	}
	d, err := policy.DirsIn(p.Policy)
	if err != nil {
		return d, usage("%w", err)
	}
	return d, nil
}

// system are the qubes.
func (p policyPlace) system(ctx context.Context, e *env) (*policy.System, error) {
	if p.SystemInfo != "" {
		text, err := os.ReadFile(p.SystemInfo)
		if err != nil {
			return nil, usage("%w", err)
		}
		s, err := policy.ParseSystem(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.SystemInfo, err)
		}
		return s, nil
	}
	text, err := e.Client.SystemInfo(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the qubes: %w", err)
	}
	return policy.ParseSystem([]byte(text))
}

type policyExplain struct {
	policyPlace
	JSON            bool   `name:"json" help:"As JSON, with the keys of --batch."`
	Batch           bool   `help:"Read calls as JSON, one a line, {\"source\", \"target\", \"service\"}, and write what becomes of them, one a line."`
	RequestedSource string `name:"requested-source" placeholder:"VMNAME" help:"The remote qube for which SOURCE, its relay, calls." complete:"qube"`
	Source          string `arg:"" optional:"" name:"SOURCE" help:"Who calls." complete:"qube"`
	Target          string `arg:"" optional:"" name:"TARGET" help:"Who is called: a qube, @dispvm, @dispvm:BASE, @adminvm, or @default where the policy shall choose." complete:"qube"`
	Service         string `arg:"" optional:"" name:"SERVICE" help:"The service, with + and an argument if wished."`
}

func (t *policyExplain) run(ctx context.Context, e *env) error {
	switch {
	case t.Batch && (t.Source != "" || t.JSON || t.RequestedSource != ""):
		return usage("--batch reads the calls from standard input")
	case !t.Batch && t.Service == "":
		return usage("SOURCE, TARGET and SERVICE are needed")
	}
	dirs, err := t.dirs(e)
	if err != nil {
		return err
	}
	system, err := t.system(ctx, e)
	if err != nil {
		return err
	}
	p, problem := policy.Load(dirs)
	if t.Batch {
		return policy.ExplainAll(p, problem, system, e.In, e.Out)
	}
	var found policy.Explanation
	if problem != nil {
		found = policy.Fault(problem)
	} else {
		found = policy.Explain(p, system, policy.Question{Source: t.Source, Target: t.Target, Service: t.Service, RequestedSource: t.RequestedSource})
	}
	switch {
	case t.JSON:
		err = json.NewEncoder(e.Out).Encode(found)
	case problem != nil:
		_, err = fmt.Fprintf(e.Out, "%s: every call is denied until this is mended:\n%s\n", found.Result, printable(problem.Error()))
	default:
		_, err = fmt.Fprintln(e.Out, printable(found.String()))
		if err == nil && t.Source == "dom0" {
			_, err = fmt.Fprintln(e.Out, "dom0's own calls are made without asking the policy; this is what programs are told that ask for it, as for the clipboard.")
		}
	}
	if err == nil && (found.Result == policy.Failed || found.Result == policy.SyntaxFault) {
		return &Failure{Status: 1}
	}
	return err
}

// policyFile is the name of a file: FILE, or include/FILE.
type policyFile struct {
	File string `arg:"" name:"FILE" help:"Name without .policy, or include/NAME." complete:"policyfile"`
}

// method is the method of the Admin API for an action on a file, with its
// argument.
func (f policyFile) method(action string) (method, name string) {
	name = strings.TrimSuffix(f.File, policy.Suffix)
	if part, ok := strings.CutPrefix(name, "include/"); ok {
		return "policy.include." + action, part
	}
	return "policy." + action, name
}

func (e *env) policyCall(ctx context.Context, f policyFile, action string, payload []byte) (string, error) {
	method, name := f.method(action)
	return e.Call(ctx, "dom0", method, name, payload)
}

// policyText reads a file; the token is "new" where there is none.
func (e *env) policyText(ctx context.Context, f policyFile) (token, text string, err error) {
	reply, err := e.policyCall(ctx, f, "Get", nil)
	if client.Is(err, "PolicyAdminFileNotFoundException") {
		return "new", "", nil
	}
	if err != nil {
		return "", "", err
	}
	token, text, ok := strings.Cut(reply, "\n")
	if !ok {
		return "", "", fmt.Errorf("unexpected reply from qubesd: %.64q", reply)
	}
	return token, text, nil
}

type policyList struct {
	Service string `placeholder:"SERVICE" help:"Only files with rules for this service."`
}

func (t *policyList) run(ctx context.Context, e *env) error {
	if t.Service != "" {
		names, err := e.Call(ctx, "dom0", "policy.GetFiles", t.Service, nil)
		if err == nil {
			_, err = fmt.Fprint(e.Out, names)
		}
		return err
	}
	names, err := e.policyNames(ctx)
	for _, name := range names {
		fmt.Fprintln(e.Out, name)
	}
	return err
}

// policyNames are the names of all files, as policyFile takes them.
func (e *env) policyNames(ctx context.Context) ([]string, error) {
	names, err := e.Words(ctx, "dom0", "policy.List", "")
	if err != nil {
		return nil, err
	}
	included, err := e.Words(ctx, "dom0", "policy.include.List", "")
	if client.Missing(err) { // a qube may be allowed one and not the other
		err = nil
	}
	for _, name := range included {
		names = append(names, "include/"+name)
	}
	return names, err
}

type policyGet struct{ policyFile }

func (t *policyGet) run(ctx context.Context, e *env) error {
	reply, err := e.policyCall(ctx, t.policyFile, "Get", nil)
	if err != nil {
		return err
	}
	_, text, _ := strings.Cut(reply, "\n")
	if isTerminal(e.Out) {
		text = printable(text)
	}
	_, err = fmt.Fprint(e.Out, text)
	return err
}

type policyReplace struct {
	Token string `default:"any" placeholder:"TOKEN" help:"Only if the file is in this state: new for none, or sha256: and the sum of its content (default: whatever it is)."`
	policyFile
	From string `arg:"" optional:"" name:"CONTENT" help:"File with the new content (default: standard input)." complete:"file"`
}

func (t *policyReplace) run(ctx context.Context, e *env) error {
	in := e.In
	if t.From != "" && t.From != "-" {
		f, err := os.Open(t.From)
		if err != nil {
			return usage("%w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, policy.MaxFile+1))
	if err != nil {
		return fmt.Errorf("read the new content: %w", err)
	}
	if len(text) > policy.MaxFile {
		return fmt.Errorf("a policy's file has at most %d bytes", policy.MaxFile)
	}
	_, err = e.policyCall(ctx, t.policyFile, "Replace", append([]byte(t.Token+"\n"), text...))
	return err
}

type policyRemove struct {
	Token string `default:"any" placeholder:"TOKEN" help:"Only if the file is in this state: sha256: and the sum of its content (default: whatever it is)."`
	policyFile
}

func (t *policyRemove) run(ctx context.Context, e *env) error {
	_, err := e.policyCall(ctx, t.policyFile, "Remove", []byte(t.Token))
	return err
}

type policyEdit struct {
	File string `arg:"" optional:"" name:"FILE" default:"30-user" help:"Name without .policy, or include/NAME (default: 30-user)." complete:"policyfile"`
}

func (t *policyEdit) run(ctx context.Context, e *env) error {
	file := policyFile{t.File}
	token, old, err := e.policyText(ctx, file)
	if err != nil {
		return err
	}
	for text := old; ; {
		if text, err = edit(ctx, e, "qvm-policy-*.policy", text); err != nil {
			return err
		}
		if text == old {
			e.say("Nothing was changed.")
			return nil
		}
		_, err := e.policyCall(ctx, file, "Replace", []byte(token+"\n"+text))
		if !client.Is(err, "PolicyAdminSyntaxException") && !client.Is(err, "PolicyAdminTokenException") {
			return err
		}
		fmt.Fprintf(e.Err, "%s: error: %s\n", e.prog, printable(err.Error()))
		if client.Is(err, "PolicyAdminSyntaxException") && e.confirm("Edit it again?") {
			continue
		}
		return errors.Join(&Failure{1, errors.New("nothing was changed")}, t.keep(e, text))
	}
}

// keep saves a text that was not taken, so that its writer has not lost it.
func (t *policyEdit) keep(e *env, text string) error {
	f, err := os.CreateTemp("", "qvm-policy-rejected-*.policy")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err == nil {
		e.say("Your text is in %s.", f.Name())
	}
	return err
}

type policyLint struct {
	Policy         string   `placeholder:"DIR" help:"Folder of the policy (default: this system's)." complete:"file"`
	IncludeService bool     `name:"include-service" short:"i" help:"The files are such as !include-service names: without service and argument."`
	Files          []string `arg:"" optional:"" name:"FILE" help:"Files; - is standard input. None: the whole policy." complete:"file"`
}

func (t *policyLint) run(_ context.Context, e *env) error {
	dirs, err := policyPlace{Policy: t.Policy}.dirs(e)
	if err != nil {
		return err
	}
	if len(t.Files) == 0 {
		_, err := policy.Load(dirs)
		return lintResult(e, err)
	}
	clean := true
	for _, name := range t.Files {
		err := t.one(e, dirs, name)
		if err != nil {
			clean = false
			fmt.Fprintln(e.Err, printable(err.Error()))
		}
	}
	if !clean {
		return &Failure{Status: 1}
	}
	return nil
}

func (t *policyLint) one(e *env, dirs policy.Dirs, name string) error {
	in, shown := e.In, "<stdin>"
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in, shown = f, name
		if t.Policy == "" {
			// Names in it begin at its own folder, or at the one around the
			// folder include.
			dir := filepath.Dir(name)
			if filepath.Base(dir) == "include" {
				dir = filepath.Dir(dir)
			}
			dirs.Policy = []string{dir}
		}
	}
	text, err := io.ReadAll(io.LimitReader(in, policy.MaxFile+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", shown, err)
	}
	if len(text) > policy.MaxFile {
		return fmt.Errorf("%s: a policy's file has at most %d bytes", shown, policy.MaxFile)
	}
	return policy.Lint(dirs, shown, text, t.IncludeService)
}

// lintResult writes the faults of a policy, a line each.
func lintResult(e *env, err error) error {
	if err == nil {
		return nil
	}
	fmt.Fprintln(e.Err, printable(err.Error()))
	return &Failure{Status: 1}
}

package policy

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Edge says that a qube may call a service of another.
type Edge struct {
	Source, Target string // names of qubes; a target may be @dispvm:BASE
	Service        string // NAME, or NAME+ARGUMENT where rules tell arguments apart
	Ask            bool   // a person is asked first
}

// Graph is who may reach whom: every service and argument that some rule
// names, called by every qube to every other, dom0 and every disposable.
// Where an allowed call is led elsewhere the edge goes there.
func (p *Policy) Graph(s *System) []Edge {
	var all []string
	for _, d := range s.domains {
		all = append(all, d.targets()...)
	}
	all = append(all, undecided()...)
	return p.edges(s, func(string) []string { return all })
}

// Around is the part of Graph that begins or ends at a qube, in a time that
// does not grow with the square of the number of qubes. Of calls to others
// that the policy leads to it, those are in it whose target is left to the
// policy.
func (p *Policy) Around(s *System, name string) []Edge {
	var all, own []string
	for _, d := range s.domains {
		all = append(all, d.targets()...)
		if d.Name == name {
			own = d.targets()
		}
	}
	all, own = append(all, undecided()...), append(own, undecided()...)
	edges := p.edges(s, func(source string) []string {
		if source == name {
			return all
		}
		return own
	})
	return slices.DeleteFunc(edges, func(e Edge) bool {
		return e.Source != name && e.Target != name && e.Target != dispvmOf+name
	})
}

// dispvmOf begins the target that is a new disposable of a qube.
const dispvmOf = "@dispvm:"

// undecided are the targets of who leaves the choice to the policy.
func undecided() []string { return []string{"@dispvm", ""} }

// targets are the ways to ask for a qube by its name.
func (d *Domain) targets() []string {
	if d.Base {
		return []string{d.Name, dispvmOf + d.Name}
	}
	return []string{d.Name}
}

// edges are those from every qube to what it asks for.
func (p *Policy) edges(s *System, targets func(source string) []string) []Edge {
	found := map[Edge]bool{}
	for _, service := range p.services() {
		name, argument, _ := strings.Cut(service, "+")
		request := Request{Service: name, Argument: "+" + argument}
		for _, d := range s.domains {
			request.Source = d.Name
			for _, request.Target = range targets(d.Name) {
				decision := p.Decide(s, request)
				reached := []string{}
				switch decision.Action {
				case Allow:
					reached = append(reached, s.named(decision.Target))
				case Ask:
					reached = append(reached, decision.Targets...)
				}
				for _, target := range reached {
					found[Edge{d.Name, target, service, decision.Action == Ask}] = true
				}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b Edge) int {
		return cmp.Or(strings.Compare(a.Source, b.Source), strings.Compare(a.Target, b.Target), strings.Compare(a.Service, b.Service), cmp.Compare(weight(a), weight(b)))
	})
}

func weight(e Edge) int {
	if e.Ask {
		return 1
	}
	return 0
}

// named is a target by name also where it was given by UUID.
func (s *System) named(target string) string {
	name, base := strings.CutPrefix(target, "@dispvm:")
	if d, ok := s.Lookup(name); ok {
		name = d.Name
	}
	if base {
		return "@dispvm:" + name
	}
	return name
}

// services are those that rules name, with the arguments that they name:
// NAME, for the empty argument and all that have no rules of their own, and
// NAME+ARGUMENT.
func (p *Policy) services() []string {
	names := map[string]bool{}
	for _, r := range p.rules {
		if r.service == "" {
			continue
		}
		names[r.service] = true
		if len(r.argument) > 1 {
			names[r.service+r.argument] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// WriteDOT draws edges in Graphviz' language: one arrow from a qube to
// another for all that it may call without a question, and a dashed one for
// what is asked about.
func WriteDOT(w io.Writer, edges []Edge) error {
	type arrow struct {
		source, target string
		ask            bool
	}
	var order []arrow
	services := map[arrow][]string{}
	for _, e := range edges {
		a := arrow{e.Source, e.Target, e.Ask}
		if services[a] == nil {
			order = append(order, a)
		}
		services[a] = append(services[a], e.Service)
	}
	out := bufio.NewWriter(w)
	fmt.Fprintln(out, "digraph policy {")
	fmt.Fprintln(out, "\trankdir=LR;")
	for _, a := range order {
		style := "solid"
		if a.ask {
			style = "dashed"
		}
		fmt.Fprintf(out, "\t%s -> %s [label=%s, style=%s];\n", quoteDOT(a.source), quoteDOT(a.target), quoteDOT(strings.Join(services[a], "\n")), style)
	}
	fmt.Fprintln(out, "}")
	return out.Flush()
}

// quoteDOT writes a quoted ID of the DOT language, with its line breaks.
func quoteDOT(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(text) + `"`
}

package create

import (
	"cubicle/app/dom0"
	"cubicle/app/words"
)

// Kind is a kind of qube that can be made.
type Kind string

// The kinds.
const (
	KindApp        Kind = "app"
	KindDisposable Kind = "disposable" // a template of disposables
	KindStandalone Kind = "standalone"
	KindTemplate   Kind = "template"
)

// Kinds are all of them, in the order in which they are offered.
func Kinds() []Kind { return []Kind{KindApp, KindDisposable, KindStandalone, KindTemplate} }

// Title is the kind as the page names it.
func (k Kind) Title() string {
	switch k {
	case KindDisposable:
		return words.T("Disposable template")
	case KindStandalone:
		return words.T("Standalone")
	case KindTemplate:
		return words.T("Template")
	}
	return words.T("App qube")
}

// Class is the class of the qube that is made.
func (k Kind) Class() dom0.Class {
	switch k {
	case KindStandalone:
		return dom0.StandaloneVM
	case KindTemplate:
		return dom0.TemplateVM
	}
	return dom0.AppVM
}

// startsAtOnce reports whether people want to go on in the new qube itself.
func (k Kind) startsAtOnce() bool { return k == KindApp || k == KindStandalone }

// hint says what the template is to a qube of the kind.
func (k Kind) hint(template string) string {
	switch k {
	case KindDisposable:
		return words.T("Disposables are made from the new qube; each is gone after its use.")
	case KindStandalone:
		return words.T("It begins as a copy of %s and is updated by itself.", template)
	case KindTemplate:
		return words.T("The new template begins as a copy of %s.", template)
	}
	return words.T("Its programs come from here; its files stay its own.")
}

// Wanted is what the daemon is asked to create for a wish of any kind but
// KindTemplate, which is a clone of its template.
func (w Wish) Wanted() dom0.NewQube {
	rows, private := w.Advanced.Properties()
	if w.Network.Chosen {
		rows["netvm"] = string(w.Network.From)
	}
	if w.Kind == KindDisposable {
		rows["template_for_dispvms"] = "True"
	}
	return dom0.NewQube{Name: w.Name, Class: w.Kind.Class(), Label: w.Label, Template: w.Template, Properties: rows, Private: private}
}

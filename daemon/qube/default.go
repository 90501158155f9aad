package qube

import "strconv"

// How defaults are computed.

func constant(v string) func(Source) (string, bool) {
	return func(Source) (string, bool) { return v, true }
}

func fact(name string) func(Source) (string, bool) {
	return func(s Source) (string, bool) { return s.Fact(name), true }
}

func ownProperty(name string) func(Source) (string, bool) {
	return func(s Source) (string, bool) { return s.Property(name), true }
}

func fromSystem(name string) func(Source) (string, bool) {
	return func(s Source) (string, bool) { return s.System().Property(name), true }
}

// fromTemplate is the template's value; without a template otherwise, which
// is a value or the name of a global property.
func fromTemplate(name, otherwise string) func(Source) (string, bool) {
	return func(s Source) (string, bool) {
		if t := s.Template(); t != nil {
			return t.Property(name), true
		}
		if _, global := system().find(otherwise); global {
			return s.System().Property(otherwise), true
		}
		return otherwise, true
	}
}

// ownTemplate is the name of the qube's template.
func ownTemplate(s Source) (string, bool) { return s.Property("template"), true }

// featureOr is an own feature that is true, or a constant.
func featureOr(feature, otherwise string) func(Source) (string, bool) {
	return func(s Source) (string, bool) {
		if v, _ := s.Feature(feature); v != "" {
			return v, true
		}
		return otherwise, true
	}
}

// FeatureWithTemplate is a feature of the qube, else of its template, else of
// that one's (spec/admin-api.md §2.4).
func FeatureWithTemplate(s Source, name string) (string, bool) {
	for ; s != nil; s = s.Template() {
		if v, ok := s.Feature(name); ok {
			return v, true
		}
	}
	return "", false
}

// maxChain bounds the walk from a qube to its netvm and on: files that people
// wrote may have a ring.
const maxChain = 100

// FeatureWithNetVM is a feature of the qube, else of its netvm, and so on.
func FeatureWithNetVM(s Source, name string) (string, bool) {
	for range maxChain {
		if s == nil {
			break
		}
		if v, ok := s.Feature(name); ok {
			return v, true
		}
		s = s.Refer("netvm")
	}
	return "", false
}

// icon names the icon (spec/admin-api.md §3.1).
func icon(s Source) (string, bool) {
	class := Class(s.Fact("klass"))
	kind := map[Class]string{StandaloneVM: "standalonevm", DispVM: "dispvm", RemoteVM: "remotevm", TemplateVM: "templatevm"}[class]
	serves, _ := s.Feature("servicevm")
	switch {
	case class == AdminVM:
		return "adminvm-black", true
	case class == TemplateVM:
	case class == AppVM && s.Property("template_for_dispvms") == "True":
		kind = "templatevm"
	case serves != "":
		kind = "servicevm"
	case kind == "":
		kind = "appvm"
	}
	return kind + "-" + s.Property("label"), true
}

func updateable(s Source) (string, bool) { return boolean(s.Template() == nil), true }

func inBackups(s Source) (string, bool) {
	switch Class(s.Fact("klass")) {
	case RemoteVM:
		return "False", true
	case DispVM:
		return boolean(s.Property("auto_cleanup") != "True"), true
	}
	return "True", true
}

func isPreload(s Source) (string, bool) {
	t := s.Template()
	if t == nil {
		return "False", true
	}
	list, _ := t.Feature("preload-dispvm")
	return boolean(hasWord(list, s.Property("name"))), true
}

func bootMode(s Source) (string, bool) {
	active, _ := s.Feature("boot-mode.active")
	if active != "" {
		if _, ok := FeatureWithTemplate(s, "boot-mode.kernelopts."+active); ok {
			return active, true
		}
	}
	if t := s.Template(); t != nil {
		if mode := t.Property("appvm_default_bootmode"); mode != "" {
			return mode, true
		}
		return t.Property("bootmode"), true
	}
	return "default", true
}

// hasPCI tells whether PCI devices are assigned.
func hasPCI(s Source) bool { return s.Fact("pci") != "" }

func virtModeDefault(s Source) (string, bool) {
	if hasPCI(s) {
		return "hvm", true
	}
	return fromTemplate("virt_mode", "pvh")(s)
}

// maxMemory is the limit of balancing (spec/admin-api.md §3.2). What the
// engine cannot balance has none.
func maxMemory(s Source) (string, bool) {
	if s.Fact("balancing") == "" {
		return "0", true
	}
	if t := s.Template(); t != nil {
		return t.Property("maxmem"), true
	}
	most := 4000
	if os, _ := s.Feature("os"); os == "Linux" {
		memory, _ := strconv.Atoi(s.Property("memory"))
		most = 10 * memory
	}
	if host, err := strconv.Atoi(s.System().Property("maxmem")); err == nil {
		most = min(most, host/2)
	}
	return strconv.Itoa(most), true
}

// kernelOptions are those of spec/platform.md §1.4 for a kernel that brings no
// file of options.
func kernelOptions(s Source) (string, bool) {
	if hasPCI(s) {
		return "", true
	}
	return fromTemplate("kernelopts", "swiotlb=2048")(s)
}

// keyboardDefault is what was set for the qube that has the keyboard.
func keyboardDefault(s Source) (string, bool) {
	if g := s.Refer("guivm"); g != nil {
		if v, ok := g.Explicit("keyboard_layout"); ok {
			return v, true
		}
	}
	return "us++", true
}

func boolean(b bool) string {
	if b {
		return "True"
	}
	return "False"
}

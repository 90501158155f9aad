package qube

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// qubeRows is the table of spec/admin-api.md §3.1–3.3, by name.
func qubeRows() []Property {
	machines := []Class{AppVM, TemplateVM}
	rows := []Property{
		{Name: "name", Type: Str, Set: AtCreation,
			Help: "Name of the qube."},
		{Name: "uuid", Type: Str, Set: AtCreation,
			Help: "Identifier that never changes and is never used again."},
		{Name: "qid", Type: Int, Set: AtCreation,
			Help: "Number of the qube in this system; dom0 is 0."},
		{Name: "klass", Type: Str, Set: Never, Default: fact("klass"),
			Help: "Class of the qube: AppVM, TemplateVM, …"},
		{Name: "label", Type: LabelRef, Set: Always, Check: labelName,
			Help: "Colour label: how far you trust what is in the qube."},
		{Name: "icon", Type: Str, Set: Never, Default: icon,
			Help: "Name of the qube's icon in the freedesktop icon theme."},

		{Name: "template", Type: VM, Classes: []Class{AppVM}, Set: WhileHalted, Target: isTemplate,
			Help: "Template whose root file system the qube starts from."},
		{Name: "netvm", Type: VM, Classes: machines, Set: Always, Optional: true, Target: isNetVM,
			Default: func(s Source) (string, bool) {
				if s.Fact("klass") == string(TemplateVM) {
					return "", true
				}
				return s.System().Property("default_netvm"), true
			},
			Help: "Qube that gives network access; empty for none."},
		{Name: "provides_network", Type: Bool, Classes: machines, Set: WhileHalted, Default: constant("False"),
			Help: "Whether other qubes may use this one for network access."},

		{Name: "memory", Type: Int, Classes: machines, Set: Always, Default: fromTemplate("memory", "400"), Check: positive,
			Help: "Memory in MiB."},
		{Name: "maxmem", Type: Int, Classes: machines, Set: Always, Default: fromTemplate("maxmem", "0"), Check: notNegative,
			Help: "Upper limit in MiB for memory balancing; 0 switches balancing off."},
		{Name: "vcpus", Type: Int, Classes: machines, Set: Always, Default: fromTemplate("vcpus", "2"), Check: positive,
			Help: "Number of virtual processors."},
		{Name: "engine", Type: Str, Classes: machines, Set: WhileHalted, Check: word,
			Default: func(s Source) (string, bool) { return s.System().Property("default_engine"), true },
			Help:    "What runs the qube: a hypervisor or a sandbox of this machine."},

		{Name: "default_user", Type: Str, Classes: machines, Set: Always, Default: fromTemplate("default_user", "user"), Check: userName,
			Help: "User in the qube that commands run as unless told otherwise."},
		{Name: "qrexec_timeout", Type: Int, Classes: machines, Set: Always, Default: fromTemplate("qrexec_timeout", "default_qrexec_timeout"), Check: positive,
			Help: "Seconds to wait for the qube's agent at a start."},
		{Name: "shutdown_timeout", Type: Int, Classes: machines, Set: Always, Default: fromTemplate("shutdown_timeout", "default_shutdown_timeout"), Check: positive,
			Help: "Seconds to wait for the qube's end after it was asked to shut down."},
		{Name: "autostart", Type: Bool, Classes: machines, Set: Always, Default: constant("False"),
			Help: "Whether the qube is started with the system."},
		{Name: "debug", Type: Bool, Classes: machines, Set: Always, Default: constant("False"),
			Help: "Whether the qube runs with debugging aids."},
		{Name: "include_in_backups", Type: Bool, Set: Always, Default: constant("True"),
			Help: "Whether a backup contains the qube unless told otherwise."},
		{Name: "installed_by_rpm", Type: Bool, Classes: machines, Set: Always, Default: constant("False"),
			Help: "Whether a package manager owns the qube; it cannot be removed then."},
		{Name: "updateable", Type: Bool, Set: Never, Default: updateable,
			Help: "Whether updates are installed in the qube itself rather than in its template."},

		{Name: "xid", Type: Int, Classes: machines, Set: Never, Default: fact("xid"),
			Help: "Domain id of the running qube, -1 when it is off."},
		{Name: "start_time", Type: Str, Classes: machines, Set: Never, Default: fact("start_time"),
			Help: "When the qube was started, in seconds since 1970; empty when it is off."},
		{Name: "trouble", Type: Str, Classes: machines, Set: Never, Default: fact("trouble"),
			Help: "Why the qube cannot be used, or how its last run ended unexpectedly; empty when all is well."},
	}
	return byName(rows)
}

// SystemRows is the table of the global properties (spec/admin-api.md §3.4),
// by name.
func SystemRows() []Property {
	rows := []Property{
		{Name: "default_template", Type: VM, Set: Always, Optional: true, Target: isTemplate,
			Help: "Template of new qubes."},
		{Name: "default_netvm", Type: VM, Set: Always, Optional: true, Default: constant(""), Target: isNetVM,
			Help: "Network access of qubes that do not choose their own."},
		{Name: "default_pool", Type: Str, Set: Always, Default: fact("default_pool"), Check: word,
			Help: "Storage pool of new volumes."},
		{Name: "default_pool_root", Type: Str, Set: Always, Default: defaultPool, Check: word,
			Help: "Storage pool of new root volumes."},
		{Name: "default_pool_private", Type: Str, Set: Always, Default: defaultPool, Check: word,
			Help: "Storage pool of new private volumes."},
		{Name: "default_pool_volatile", Type: Str, Set: Always, Default: defaultPool, Check: word,
			Help: "Storage pool of new volatile volumes."},
		{Name: "default_engine", Type: Str, Set: Always, Default: fact("default_engine"), Check: word,
			Help: "What runs qubes that do not choose their own engine: the strongest of this machine."},
		{Name: "default_qrexec_timeout", Type: Int, Set: Always, Default: constant("60"), Check: positive,
			Help: "Seconds to wait for a qube's agent at a start."},
		{Name: "default_shutdown_timeout", Type: Int, Set: Always, Default: constant("60"), Check: positive,
			Help: "Seconds to wait for a qube's end after it was asked to shut down."},
		{Name: "stats_interval", Type: Int, Set: Always, Default: constant("3"), Check: positive,
			Help: "Seconds between two measurements of running qubes."},
	}
	return byName(rows)
}

func byName(rows []Property) []Property {
	slices.SortFunc(rows, func(a, b Property) int { return strings.Compare(a.Name, b.Name) })
	return rows
}

// Defaults.

func constant(v string) func(Source) (string, bool) {
	return func(Source) (string, bool) { return v, true }
}

func fact(name string) func(Source) (string, bool) {
	return func(s Source) (string, bool) { return s.Fact(name), true }
}

// fromTemplate is the template's value; without a template otherwise, which
// is a number, a word or the name of a global property.
func fromTemplate(name, otherwise string) func(Source) (string, bool) {
	return func(s Source) (string, bool) {
		if t := s.Template(); t != nil {
			return t.Property(name), true
		}
		if strings.HasPrefix(otherwise, "default_") {
			return s.System().Property(otherwise), true
		}
		return otherwise, true
	}
}

func defaultPool(s Source) (string, bool) { return s.Property("default_pool"), true }

func icon(s Source) (string, bool) {
	label := s.Property("label")
	if s.Fact("klass") == string(AdminVM) {
		return "adminvm-black", true
	}
	if s.Fact("klass") == string(TemplateVM) {
		return "templatevm-" + label, true
	}
	if v, ok := s.Feature("servicevm"); ok && v != "" {
		return "servicevm-" + label, true
	}
	return "appvm-" + label, true
}

func updateable(s Source) (string, bool) {
	if s.Template() != nil {
		return "False", true
	}
	return "True", true
}

// Rules.

func isTemplate(s Source) error {
	if s.Fact("klass") != string(TemplateVM) {
		return fmt.Errorf("%s is not a template", s.Property("name"))
	}
	return nil
}

func isNetVM(s Source) error {
	if s.Property("provides_network") != "True" {
		return fmt.Errorf("%s does not provide network", s.Property("name"))
	}
	return nil
}

func labelName(text string) (string, error) {
	for _, l := range Labels {
		if text == l.Name || text == strconv.Itoa(l.Index) {
			return l.Name, nil
		}
	}
	return "", fmt.Errorf("there is no label %q", cut(text))
}

func positive(text string) (string, error) {
	if n, err := strconv.Atoi(text); err != nil || n <= 0 || n > 1<<30 {
		return "", fmt.Errorf("%s is not a number from 1 to 2^30", text)
	}
	return text, nil
}

func notNegative(text string) (string, error) {
	if text == "0" {
		return text, nil
	}
	return positive(text)
}

func word(text string) (string, error) {
	if text == "" || strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
		return "", fmt.Errorf("%q is not a name", cut(text))
	}
	return text, nil
}

func userName(text string) (string, error) {
	if text == "" || len(text) > 64 || strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+,.-") != "" {
		return "", fmt.Errorf("%q is not a user name", cut(text))
	}
	return text, nil
}

// parse brings a text into the type's one form.
func (t Type) parse(text string) (string, error) {
	for i := 0; i < len(text); i++ {
		if c := text[i]; c >= 0x7f || c < ' ' && !(c >= '\t' && c <= '\r') {
			return "", errors.New("only printable ASCII is allowed")
		}
	}
	switch t {
	case Bool:
		switch strings.ToLower(text) {
		case "0", "no", "false", "off":
			return "False", nil
		case "1", "yes", "true", "on":
			return "True", nil
		}
		return "", fmt.Errorf("%q is not a truth value", cut(text))
	case Int:
		digits := strings.TrimPrefix(text, "-")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || len(digits) > 19 || digits[0] < '0' || digits[0] > '9' || digits[0] == '0' && text != "0" {
			return "", fmt.Errorf("%q is not a number", cut(text))
		}
		return strconv.FormatInt(n, 10), nil
	case VM:
		if text == "" {
			return "", nil
		}
		n, err := ParseName(text)
		return string(n), err
	}
	return text, nil
}

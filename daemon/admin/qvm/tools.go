package qvm

// row is a tool: its name, what it is for, and its command line.
type row struct {
	name    string
	summary string
	text    []string // paragraphs of the manual page
	hidden  bool
	new     func() tool
}

// tools are all tools, by name.
func tools() []row {
	return []row{
		{name: "qrexec-policy-graph", summary: "Draw which qubes may call which others.", new: func() tool { return &upstreamGraph{} }, text: []string{
			"The same as qvm-policy graph: arrows in the language of Graphviz' dot, dashed where a person is asked."}},
		{name: "qubes-policy", summary: "Show and change the files of the policy.", new: func() tool { return &upstreamPolicy{} }, text: policyText()},
		{name: "qubes-policy-editor", summary: "Change a file of the policy in an editor.", new: func() tool { return &upstreamEditor{} }, text: policyText()},
		{name: "qubes-policy-lint", summary: "Look for faults in files of the policy.", new: func() tool { return &upstreamLint{} }, text: []string{
			"Each fault is told with its file and line on standard error, and the exit status is 1. What a file includes is looked at, too."}},
		{name: "qubes-prefs", summary: "Show and change the global properties.", new: func() tool { return &systemPrefs{} }, text: []string{
			"Without arguments all global properties are listed, with D for those that have their default value. " +
				"With a PROPERTY its value is shown, with a VALUE it is set, and with --default it is put back.",
			"A property that names a qube takes the empty text or none for no qube."}},
		{name: "qubes-vm-settings", summary: "Open a qube's page in the Qube Manager.", new: func() tool { return &settings{} }},
		{name: "qvm-block", summary: "Show, attach and assign block devices.", new: func() tool { return &device{class: "block"} }, text: deviceText()},
		{name: "qvm-check", summary: "Test whether qubes exist, and in what state they are.", new: func() tool { return &check{} }, text: []string{
			"Without an option the qubes need only exist. With several options all of them must hold. " +
				"The exit status is 0 when all qubes fit, 1 when one does not exist or none fits, and 3 when only some fit."}},
		{name: "qvm-clone", summary: "Copy a qube with its data and settings.", new: func() tool { return &clone{} }, text: []string{
			"The copy gets the same class, template and label, all properties that were set, tags, features, notes, firewall rules, device assignments, " +
				"and the content of every volume that keeps its data."}},
		{name: "qvm-copy-to-vm", summary: "Copy files from dom0 to a qube.", new: func() tool { return &copyTo{} }, text: copyText()},
		{name: "qvm-create", summary: "Create a qube.", new: func() tool { return &create{} }, text: []string{
			"A label is always needed. Without --template the system's default template is used. A StandaloneVM that is given a template " +
				"starts as a copy of it."}},
		{name: "qvm-device", summary: "Show, attach and assign devices.", new: func() tool { return &device{} }, text: deviceText()},
		{name: "qvm-features", summary: "Show and change the features of a qube.", new: func() tool { return &features{} }, text: []string{
			"An empty value is false, every other value is true. A feature that is not set has the default of whoever reads it."}},
		{name: "qvm-firewall", summary: "Show and change the firewall rules of a qube.", new: func() tool { return &firewallTool{} }, text: []string{
			"A RULE is accept or drop, followed by any of dsthost=NAME or ADDRESS, dst4=ADDRESS, dst6=ADDRESS, proto=tcp, udp or icmp, dstports=N or N-M, " +
				"icmptype=N, specialtarget=dns, expire=TIME (seconds since 1970, or +SECONDS from now) and, as the last, comment=TEXT. " +
				"As a short form, accept and drop may be followed by a host, a protocol and ports without their names.",
			"The first rule that fits decides; what no rule fits is dropped."}},
		{name: "qvm-kill", summary: "End qubes at once.", new: func() tool { return &kill{} }},
		{name: "qvm-ls", summary: "List qubes and their properties.", new: func() tool { return &ls{} }, text: []string{
			"Filters that are given together must all hold. On a terminal the table has colours, and wide columns are cut to the terminal's width; " +
				"in a pipe it is plain and whole."}},
		{name: "qvm-move-to-vm", summary: "Move files from dom0 to a qube.", new: func() tool { return &copyTo{move: true} }, text: copyText()},
		{name: "qvm-notes", summary: "Show and change the notes of a qube.", new: func() tool { return &notes{} }, text: []string{
			"Without an option the notes are opened in the editor that the variables VISUAL or EDITOR name."}},
		{name: "qvm-pause", summary: "Freeze qubes.", new: func() tool { return &pause{} }},
		{name: "qvm-pci", summary: "Show and assign PCI devices.", new: func() tool { return &device{class: "pci"} }, text: deviceText()},
		{name: "qvm-policy", summary: "Show, explain and change which qube may call which service of which other.", new: func() tool { return &policyTool{} }, text: policyText()},
		{name: "qvm-pool", summary: "Show and change storage pools.", new: func() tool { return &pool{} }},
		{name: "qvm-prefs", summary: "Show and change the properties of a qube.", new: func() tool { return &prefs{} }, text: []string{
			"Without a PROPERTY all properties are listed, with D for those that have their default value. " +
				"With a PROPERTY its value is shown, with a VALUE it is set, and with --default it is put back.",
			"A property that names a qube takes the empty text or none for no qube."}},
		{name: "qvm-remove", summary: "Remove qubes with their data.", new: func() tool { return &remove{} }},
		{name: "qvm-restart", summary: "Shut qubes down and start them again.", new: func() tool { return &restart{} }},
		{name: "qvm-run", summary: "Run a command in qubes.", new: func() tool { return &run{} }, text: []string{
			"A command of one word is given to a shell in the qube. Several words are run as they are, without a shell where the qube's template says that it " +
				"supports that (feature vmexec).",
			"With --dispvm a new disposable is made for the command and removed after it. Options behind the command are the command's own. " +
				"With --pass-io the exit status is the command's."}},
		{name: "qvm-service", summary: "Show and change which services run in a qube.", new: func() tool { return &service{} }, text: []string{
			"A service that is neither on nor off is left to the qube."}},
		{name: "qvm-shutdown", summary: "Shut qubes down.", new: func() tool { return &shutdown{} }, text: []string{
			"Qubes that others depend on are asked again once those are down. With --wait, qubes that are not down in time are killed."}},
		{name: "qvm-start", summary: "Start qubes.", new: func() tool { return &start{} }},
		{name: "qvm-suspend", summary: "Put qubes to sleep, with their own preparation for it.", new: func() tool { return &suspend{} }},
		{name: "qvm-tags", summary: "Show and change the tags of a qube.", new: func() tool { return &tags{} }},
		{name: "qvm-template", summary: "List the templates of this system.", new: func() tool { return &template{} }},
		{name: "qvm-unpause", summary: "Thaw frozen qubes and wake sleeping ones.", new: func() tool { return &unpause{} }},
		{name: "qvm-usb", summary: "Show, attach and assign USB devices.", new: func() tool { return &device{class: "usb"} }, text: deviceText()},
		{name: "qvm-volume", summary: "Show and change the volumes of qubes.", new: func() tool { return &volume{} }},

		{name: "man", hidden: true, summary: "Write the manual pages of all tools into a folder.", new: func() tool { return &manual{} }},
		{name: "completion", hidden: true, summary: "Write what a shell needs to complete the tools' command lines.", new: func() tool { return &completion{} }},
		{name: "complete", hidden: true, summary: "Print how a command line can go on.", new: func() tool { return &complete{} }},
	}
}

func copyText() []string {
	return []string{
		"The files land in QubesIncoming/dom0 in the home of the qube's user. A file that is there already is not overwritten. Links that lead out of what is copied, " +
			"devices and sockets are refused before anything is sent. What is moved is removed here once the qube has confirmed all of it."}
}

func policyText() []string {
	return []string{
		"A rule is a line SERVICE ARGUMENT SOURCE TARGET allow|ask|deny, with options behind it; the first that fits decides, and what no rule fits is denied. " +
			"Files are read in the order of their names. While one of them has a fault, every call is denied; so no change is taken with which the policy could not be read.",
		"The rules of the system are in files 90-…; your own belong into 30-user. A file of the system that you change or remove stays so."}
}

func deviceText() []string {
	return []string{
		"A DEVICE is BACKEND:PORT or BACKEND:PORT:DEVICE_ID. Attaching is for now, and the qube must run; assigning is for good, and takes place at the qube's " +
			"start and when the device appears.",
		"qvm-block, qvm-usb and qvm-pci are qvm-device with that class."}
}

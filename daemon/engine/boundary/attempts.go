package boundary

var (
	refused = Results{Result{Verdict: Refused}, Result{Verdict: Refused}}
)

func harmless(why string) Results {
	r := Result{Harmless, why}
	return Results{r, r}
}

func possible(why string) Results {
	r := Result{Possible, why}
	return Results{r, r}
}

// rootOnly: the qube's user is refused.
func rootOnly(r Results) Results { return Results{r.Root, refused.User} }

// gVisorOwn is the reason why much is harmless under runsc.
const gVisorOwn = "gVisor's own kernel, which is the qube's"

// Attempts are all that the attacker makes, in the order of the table.
var Attempts = []Attempt{
	{Name: "read dom0's files", Group: "Files", Means: "dom0's secrets, other qubes' volumes and the template's image are open", Crun: refused, Runsc: refused, Control: true},
	{Name: "dom0's files through /proc/1/root", Group: "Files", Means: "the root folder can be left by way of a process", Crun: refused, Runsc: refused, Control: true},
	{Name: "leave a chroot", Group: "Files", Means: "the root folder can be left by walking up", Crun: refused, Runsc: refused, Control: true},
	{Name: "leave by an inherited folder", Group: "Files", Means: "a descriptor that the runtime forgot leads to dom0", Crun: refused, Runsc: refused},
	{Name: "file handles", Group: "Files", Means: "any inode of a volume's file system opens by its number", Crun: refused, Runsc: refused},
	{Name: "write to the agent's folder", Group: "Files", Means: "the next qube runs the attacker's agent", Crun: refused, Runsc: refused},
	{Name: "write to the agent's program", Group: "Files", Means: "the next qube runs the attacker's agent", Crun: refused, Runsc: refused},
	{Name: "replace the link's socket", Group: "Files", Means: "qrexecd or another program of dom0 talks to a socket of the qube's", Crun: refused, Runsc: refused},
	{Name: "raw block devices", Group: "Files", Means: "the template's image and all volumes can be read and written past the file system", Crun: refused, Runsc: refused},

	{Name: "see dom0's processes", Group: "Processes", Means: "command lines and environments of dom0", Crun: refused, Runsc: refused, Control: true},
	{Name: "see another qube's processes", Group: "Processes", Means: "command lines and environments of another qube", Crun: refused, Runsc: refused},
	{Name: "signal dom0's process", Group: "Processes", Means: "dom0's daemons can be ended", Crun: refused, Runsc: refused, Control: true},
	{Name: "ptrace dom0's process", Group: "Processes", Means: "dom0's memory can be read and written", Crun: refused, Runsc: refused, Control: true},
	{Name: "pidfd of dom0's process", Group: "Processes", Means: "dom0's descriptors can be taken", Crun: refused, Runsc: refused, Control: true},

	{Name: "dom0's abstract socket", Group: "Sockets", Means: "every program of dom0 that listens so is open", Crun: refused, Runsc: refused, Control: true},
	{Name: "an X server outside", Group: "Sockets", Means: "screen and keyboard of dom0 or of another qube", Crun: refused, Runsc: refused, Control: true},
	{Name: "dom0's sockets in the file system", Group: "Sockets", Means: "the buses, qubesd, the broker and other qubes' links are open", Crun: refused, Runsc: refused, Control: true},
	{Name: "channel to another qube", Group: "Sockets", Means: "qrexecd joins two qubes without asking a policy", Crun: refused, Runsc: refused},
	{Name: "channels of dom0's side", Group: "Sockets", Means: "qrexecd takes the qube for dom0", Crun: refused, Runsc: refused},
	{Name: "cut off the pixel region", Group: "Sockets", Means: "dom0's X server or guid dies reading it", Crun: refused, Runsc: refused},
	{Name: "write to the pixel region of an ended session", Group: "Sockets", Means: "dom0 gives memory that somebody still writes to another session", Crun: refused, Runsc: refused},

	{Name: "network devices", Group: "Network", Means: "a way to the network that no NetVM watches", Crun: refused, Runsc: refused},
	{Name: "dom0's loopback", Group: "Network", Means: "every service that dom0 offers itself", Crun: refused, Runsc: refused, Control: true},
	{Name: "raw packets", Group: "Network", Means: "packets past all rules", Crun: refused, Runsc: refused, Control: true},
	{Name: "vsock", Group: "Network", Means: "the machine that dom0 itself may run in", Crun: refused, Runsc: refused},
	{Name: "make a network device", Group: "Network", Means: "the network's code in dom0's kernel is open", Crun: refused, Runsc: refused},
	{Name: "rare network protocols", Group: "Network", Means: "dom0's kernel loads modules at the qube's wish", Crun: refused, Runsc: refused},

	{Name: "dom0's keyring", Group: "Kernel", Means: "dom0's keys can be read", Crun: refused, Runsc: refused, Control: true},
	{Name: "dom0's shared memory and queues", Group: "Kernel", Means: "pictures and messages of dom0's programs", Crun: refused, Runsc: refused, Control: true},
	{Name: "FUSE and TUN", Group: "Kernel", Means: "dom0's kernel waits for a file system of the qube's, or takes packets from it", Crun: refused, Runsc: harmless(gVisorOwn)},
	{Name: "device nodes of memory, KVM, loop and consoles", Group: "Kernel", Means: "dom0's memory, disks and network are open", Crun: refused, Runsc: refused},
	{Name: "write to /proc/sys", Group: "Kernel", Means: "dom0 runs the attacker's program at the next crash (core_pattern)", Crun: refused, Runsc: refused},
	{Name: "write to /sys", Group: "Kernel", Means: "devices and power of the machine", Crun: refused, Runsc: refused},
	{Name: "kernel log", Group: "Kernel", Means: "addresses and names of dom0", Crun: refused, Runsc: harmless("a log that gVisor makes up")},
	{Name: "kernel addresses", Group: "Kernel", Means: "half of an exploit", Crun: refused, Runsc: refused},
	{Name: "set the clock", Group: "Kernel", Means: "dom0's time, certificates and logs", Crun: refused, Runsc: refused},
	{Name: "load a module", Group: "Kernel", Means: "dom0's kernel is the attacker's", Crun: refused, Runsc: refused},
	{Name: "start another kernel", Group: "Kernel", Means: "the machine is the attacker's", Crun: refused, Runsc: refused},
	{Name: "bpf", Group: "Kernel", Means: "programs in dom0's kernel", Crun: refused, Runsc: rootOnly(harmless(gVisorOwn))},
	{Name: "perf events", Group: "Kernel", Means: "what other qubes compute", Crun: refused, Runsc: refused},
	{Name: "io_uring", Group: "Kernel", Means: "a second, unfiltered way to all calls", Crun: refused, Runsc: refused},
	{Name: "userfaultfd", Group: "Kernel", Means: "races in the kernel can be held open", Crun: refused, Runsc: refused},
	{Name: "32-bit calls", Group: "Kernel", Means: "a second table of calls, past the filter", Crun: refused, Runsc: refused},
	{Name: "dom0's interrupts and disks", Group: "Kernel", Means: "when keys are pressed in dom0, and when other qubes write", Crun: refused, Runsc: refused, Control: true},
	{Name: "dom0's load and hardware", Group: "Kernel", Means: "when dom0 and other qubes work, and on what machine", Crun: possible("/proc shows the whole machine's load, memory and processor"), Runsc: refused, Control: true},

	{Name: "new user namespace", Group: "Privileges", Means: "capabilities over new parts of the kernel", Crun: refused, Runsc: harmless(gVisorOwn)},
	{Name: "mount a file system", Group: "Privileges", Means: "parsers of dom0's kernel read the attacker's bytes", Crun: refused, Runsc: rootOnly(harmless(gVisorOwn))},
	{Name: "capabilities beyond the bundle's", Group: "Privileges", Means: "more of the kernel's privileged code", Crun: refused, Runsc: refused},
	{Name: "raise the limits", Group: "Privileges", Means: "fork bombs without a bound", Crun: refused, Runsc: refused},
	{Name: "control groups", Group: "Privileges", Means: "limits can be left, and dom0 runs a program (release_agent)", Crun: refused, Runsc: rootOnly(harmless("the control groups of " + gVisorOwn))},
}

package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// hashes prints one number for all files below the folders that it is given.
const hashes = `hashes() { find "$@" -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum; }; `

// testServices uses what people do daily between two qubes that may: files are
// copied and moved, a link and a document are opened, a command runs, a port
// is reached. CUBICLE_TEST_LARGE has it copy 10 000 files and 1 GiB.
func (d *desktop) testServices(t *testing.T) {
	file := filepath.Join(d.root, "etc/qubes/policy.d/20-services.policy")
	var rules strings.Builder
	for _, service := range []string{"qubes.Filecopy", "qubes.OpenInVM", "qubes.OpenURL", "qubes.VMShell", "qubes.ConnectTCP"} {
		fmt.Fprintf(&rules, "%s * work untrusted allow\n", service)
	}
	rules.WriteString("qubes.Filecopy * work @default allow target=untrusted\n")
	if err := os.WriteFile(file, []byte(rules.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(file); err != nil {
			t.Error(err)
		}
		d.inQube(t, "work", "rm -rf ~/many ~/large ~/doc.test")
		d.inQube(t, "untrusted", "rm -rf ~/QubesIncoming ~/handler ~/opened ~/.local/share/applications/test.desktop ~/.local/share/mime")
	})
	// expect runs a command in work and compares what it prints.
	expect := func(want, command string) {
		t.Helper()
		if got := d.inQube(t, "work", "cd; "+command); got != want {
			t.Errorf("%s: %q, want %q", command, got, want)
		}
	}
	files, megabytes := 500, 8
	if os.Getenv("CUBICLE_TEST_LARGE") != "" {
		files, megabytes = 10_000, 1024
	}
	d.inQube(t, "work", fmt.Sprintf(`mkdir -p ~/many/sub; cd ~/many; for i in $(seq %d); do echo $i > "sub/f $i"; done; ln -s "sub/f 1" l; chmod 640 sub/*; touch -d 2020-02-03 "sub/f 2"
		head -c %dM /dev/urandom > ~/large`, files, megabytes))
	sum := d.inQube(t, "work", hashes+"cd; hashes many large")
	expect("0", "qvm-copy many large; echo $?")
	if got := d.inQube(t, "untrusted", hashes+"cd ~/QubesIncoming/work; hashes many large"); got != sum {
		t.Errorf("what arrived differs: %q, %q", got, sum)
	}
	if got := d.inQube(t, "untrusted", `cd ~/QubesIncoming/work/many; readlink l; stat -c "%a %Y" "sub/f 2"; stat -c %a ~/QubesIncoming ~/QubesIncoming/work | tr '\n' ' '`); got != "sub/f 1\n640 1580688000\n700 700" {
		t.Errorf("modes, times and links: %q", got)
	}
	expect(`qvm-copy: "large" is there already; move or rename it, there or here`+"\n1", "qvm-copy large 2>&1 | tail -1; echo ${PIPESTATUS[0]}")
	d.inQube(t, "untrusted", "rm ~/QubesIncoming/work/large") // room for it under another name
	expect("0\ngone", "mv large moved; qvm-move-to-vm untrusted moved; echo $?; [ -e moved ] || echo gone")
	expect("1", "ln -s /etc many/out; qvm-copy many 2>/dev/null; echo $?")

	// A link and a document open in the other qube's handler.
	handler := "[Desktop Entry]\nType=Application\nName=Test\nExec=/home/user/handler %u\nMimeType=x-scheme-handler/http;x-scheme-handler/https;text/x-test;\nNoDisplay=true\n"
	script := "#!/bin/sh\necho \"$1\" >> ~/opened\n[ -f \"$1\" ] && echo changed > \"$1\"\nexit 0\n"
	d.inQube(t, "untrusted", fmt.Sprintf("mkdir -p ~/.local/share/applications ~/.local/share/mime; printf '%%s' '%s' > ~/.local/share/applications/test.desktop; printf '%%s' '%s' > ~/handler; chmod +x ~/handler; echo '90:text/x-test:*.test' > ~/.local/share/mime/globs2", handler, script))
	expect("0", "qvm-open-in-vm untrusted 'https://www.example.org/?a=b&c'; echo $?")
	expect("0\nchanged", "echo draft > doc.test; qvm-open-in-vm untrusted doc.test; echo $?; cat doc.test")
	expect("1", "qvm-open-in-vm untrusted file:///etc/passwd 2>/dev/null; echo $?")
	opened := strings.Split(d.inQube(t, "untrusted", "cat ~/opened"), "\n")
	if len(opened) != 2 || opened[0] != "https://www.example.org/?a=b&c" || !strings.HasPrefix(opened[1], "/tmp/work-") || !strings.HasSuffix(opened[1], "/doc.test") {
		t.Errorf("opened: %q", opened)
	}
	if left := d.inQube(t, "untrusted", "ls -d /tmp/work-* 2>/dev/null | wc -l"); left != "0" {
		t.Errorf("%s documents of the other qube stay", left)
	}

	expect("untrusted\nfrom work\n5", "echo from work | qvm-run-vm --no-gui untrusted 'hostname; cat; exit 5'; echo $?")
	expect("Request refused\n126", "qrexec-client-vm vault qubes.VMShell 2>&1; echo $?")
	expect("HELLO", `qvm-run-vm --no-gui untrusted 'perl -MIO::Socket::INET -e "\$l = IO::Socket::INET->new(LocalAddr => q(127.0.0.1:7777), Listen => 1, ReuseAddr => 1) or die; \$c = \$l->accept; print \$c uc <\$c>"' &
		qvm-connect-tcp 7778:untrusted:7777 2>/dev/null & forward=$!
		for i in $(seq 50); do
			perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new("127.0.0.1:7778") or exit 1; print $s "hello\n"; shutdown $s, 1; $_ = <$s>; print; exit !$_' && break
			sleep 0.2
		done; kill $forward; wait`)
}

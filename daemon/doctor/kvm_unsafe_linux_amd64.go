package doctor

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Numbers of the kernel's KVM API (Documentation/virt/kvm/api.rst).
const (
	kvmCreateVM            = 0xae01
	kvmCreateVCPU          = 0xae41
	kvmRun                 = 0xae80
	kvmGetVCPUMmapSize     = 0xae04
	kvmSetUserMemoryRegion = 0x4020ae46
	kvmGetSregs            = 0x8138ae83
	kvmSetSregs            = 0x4138ae84
	kvmSetRegs             = 0x4090ae82
	kvmExitIO              = 2
	guestSize              = 0x1000
	guestAddress           = 0x1000
	guestPort              = 0xe9
)

// guestCode adds the two bytes in AL and BL, writes the sum to port 0xe9, and
// halts.
var guestCode = []byte{0x00, 0xd8, 0xe6, guestPort, 0xf4} // add al, bl; out 0xe9, al; hlt

type kvmMemoryRegion struct {
	Slot, Flags              uint32
	GuestAddress, Size, User uint64
}

type kvmRegs struct {
	RAX, RBX, RCX, RDX, RSI, RDI, RSP, RBP uint64
	R8, R9, R10, R11, R12, R13, R14, R15   uint64
	RIP, RFLAGS                            uint64
}

// kvmSregs holds struct kvm_sregs (0x138 bytes); only the code segment's base
// (offset 0) and selector (offset 12) are of interest here.
type kvmSregs [0x138]byte

// KVMGuest runs a tiny guest and returns nil when it answered. A KVM that
// hangs cannot be interrupted from inside: run it in a process of its own and
// kill that after a while.
func KVMGuest() error {
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer kvm.Close()
	vm, err := ioctl(kvm.Fd(), kvmCreateVM, 0)
	if err != nil {
		return fmt.Errorf("create a machine: %w", err)
	}
	defer unix.Close(int(vm))
	memory, err := unix.Mmap(-1, 0, guestSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	defer unix.Munmap(memory)
	copy(memory, guestCode)
	region := kvmMemoryRegion{GuestAddress: guestAddress, Size: guestSize, User: uint64(uintptr(unsafe.Pointer(&memory[0])))}
	if _, err := ioctl(vm, kvmSetUserMemoryRegion, uintptr(unsafe.Pointer(&region))); err != nil {
		return fmt.Errorf("give it memory: %w", err)
	}
	cpu, err := ioctl(vm, kvmCreateVCPU, 0)
	if err != nil {
		return fmt.Errorf("create a processor: %w", err)
	}
	defer unix.Close(int(cpu))
	size, err := ioctl(kvm.Fd(), kvmGetVCPUMmapSize, 0)
	if err != nil {
		return err
	}
	run, err := unix.Mmap(int(cpu), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(run)
	var sregs kvmSregs
	if _, err := ioctl(cpu, kvmGetSregs, uintptr(unsafe.Pointer(&sregs))); err != nil {
		return err
	}
	clear(sregs[0:8])   // base of the code segment
	clear(sregs[12:14]) // its selector
	if _, err := ioctl(cpu, kvmSetSregs, uintptr(unsafe.Pointer(&sregs))); err != nil {
		return err
	}
	regs := kvmRegs{RIP: guestAddress, RAX: 40, RBX: 2, RFLAGS: 2}
	if _, err := ioctl(cpu, kvmSetRegs, uintptr(unsafe.Pointer(&regs))); err != nil {
		return err
	}
	for {
		_, err := ioctl(cpu, kvmRun, 0)
		if err == unix.EINTR {
			continue // the runtime's own signals
		}
		if err != nil {
			return fmt.Errorf("run it: %w", err)
		}
		break
	}
	// struct kvm_run: exit_reason at 8; for I/O direction 32, size 33, port
	// 34, count 36, offset of the data 40.
	reason := *(*uint32)(unsafe.Pointer(&run[8]))
	port := *(*uint16)(unsafe.Pointer(&run[34]))
	offset := *(*uint64)(unsafe.Pointer(&run[40]))
	if reason != kvmExitIO || port != guestPort || offset >= uint64(len(run)) {
		return fmt.Errorf("it left with reason %d, not by its answer", reason)
	}
	if sum := run[offset]; sum != 42 {
		return fmt.Errorf("it answered %d instead of 42", sum)
	}
	return nil
}

func ioctl(fd uintptr, request, arg uintptr) (uintptr, error) {
	r, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, request, arg)
	if errno != 0 {
		return 0, errno
	}
	return r, nil
}

package task

import "fmt"

// Exit is how a container's process ended.
type Exit struct {
	// Code is the exit code, 128 + n for signal n.
	Code int32
	// OOM says that the kernel killed a process of it because its memory was used up.
	OOM bool
}

// Words tells an exit to a person.
func (e Exit) Words() string {
	words := fmt.Sprintf("exit code %d", e.Code)
	if n := e.Code - 128; signalName(n) != "" {
		words += fmt.Sprintf(": killed by signal %d (%s)", n, signalName(n))
	}
	switch {
	case e.OOM && e.Code == 137:
		words += ": out of memory"
	case e.OOM:
		words += "; out of memory: the kernel has killed a process of it"
	}
	return words
}

// signalName knows the signals that end a process (signal(7), x86 and ARM numbers).
func signalName(n int32) string {
	switch n {
	case 1:
		return "SIGHUP"
	case 2:
		return "SIGINT"
	case 3:
		return "SIGQUIT"
	case 4:
		return "SIGILL"
	case 5:
		return "SIGTRAP"
	case 6:
		return "SIGABRT"
	case 7:
		return "SIGBUS"
	case 8:
		return "SIGFPE"
	case 9:
		return "SIGKILL"
	case 10:
		return "SIGUSR1"
	case 11:
		return "SIGSEGV"
	case 12:
		return "SIGUSR2"
	case 13:
		return "SIGPIPE"
	case 14:
		return "SIGALRM"
	case 15:
		return "SIGTERM"
	}
	return ""
}

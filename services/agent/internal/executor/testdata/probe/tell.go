package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// tell answers questions about the container that it runs in, one line each: `question = answer`.
func tell(questions []string) {
	for _, q := range questions {
		verb, arg, _ := strings.Cut(q, ":")
		fmt.Printf("%s = %s\n", q, answer(verb, arg))
	}
}

func answer(verb, arg string) string {
	switch verb {
	case "file": // its content, in one line
		return content(arg)
	case "line": // FILE|WORD: the lines of a file that have a word
		file, word, _ := strings.Cut(arg, "|")
		return grep(file, word)
	case "env":
		return os.Getenv(arg)
	case "args":
		return strings.Join(os.Args, " ")
	case "ids":
		groups, _ := os.Getgroups()
		return fmt.Sprint(os.Getuid(), " ", os.Getgid(), " ", groups)
	case "cwd":
		dir, _ := os.Getwd()
		return dir
	case "hostname":
		name, _ := os.Hostname()
		return name
	case "write": // whether a new file can be made in a folder
		return result(os.WriteFile(filepath.Join(arg, "written"), []byte("here"), 0o600))
	case "open": // whether a file can be opened for writing
		f, err := os.OpenFile(arg, os.O_WRONLY, 0)
		if err == nil {
			err = f.Close()
		}
		return result(err)
	case "list":
		return list(arg)
	case "link":
		to, err := os.Readlink(arg)
		return to + result(err)
	case "mode":
		info, err := os.Stat(arg)
		if err != nil {
			return result(err)
		}
		st, _ := info.Sys().(*syscall.Stat_t)
		return fmt.Sprintf("%o %d:%d", info.Mode().Perm(), st.Uid, st.Gid)
	case "lookup":
		to, err := net.LookupHost(arg)
		return strings.Join(to, " ") + result(err)
	case "keyctl": // a system call that the default filter refuses
		_, _, errno := syscall.Syscall(syscall.SYS_KEYCTL, 0, 0, 0)
		return errno.Error()
	case "chown": // FILE|UID
		file, id, _ := strings.Cut(arg, "|")
		uid, _ := strconv.Atoi(id)
		return result(os.Chown(file, uid, uid))
	case "listen":
		l, err := net.Listen("tcp", arg)
		if err == nil {
			err = l.Close()
		}
		return result(err)
	case "ping": // a socket for echo requests that needs no right
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, syscall.IPPROTO_ICMP)
		if err == nil {
			err = syscall.Close(fd)
		}
		return result(err)
	case "mkdir":
		return result(os.Mkdir(arg, 0o700))
	case "stdin": // whether its input has an end
		ended := make(chan error, 1)
		go func() {
			_, err := os.Stdin.Read(make([]byte, 1))
			ended <- err
		}()
		select {
		case err := <-ended:
			return err.Error()
		case <-time.After(300 * time.Millisecond):
			return "open"
		}
	case "terminal":
		info, err := os.Stdin.Stat()
		return strconv.FormatBool(err == nil && info.Mode()&os.ModeCharDevice != 0)
	}
	return "?"
}

func result(err error) string {
	var errno syscall.Errno
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}

func content(file string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return result(err)
	}
	return strings.Join(strings.FieldsFunc(strings.TrimSpace(string(data)), func(r rune) bool { return r == '\n' || r == 0 }), "; ")
}

func grep(file, word string) string {
	data, err := os.ReadFile(file)
	if err != nil {
		return result(err)
	}
	var found []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, word) {
			found = append(found, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(found, "; ")
}

func list(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return result(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

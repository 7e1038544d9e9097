package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// misuse is the exit code for a config that is not valid.
const misuse = 78

// configKey is a row of a page in docs/reference/config.
type configKey struct{ name, kind, initial, limits string }

// configPage is the page of a process: its rows, and the file with all keys.
func configPage(t *testing.T, process string) (keys []configKey, full string) {
	t.Helper()
	name := filepath.Join(root(t), "docs/reference/config", process+".md")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, " | "); strings.HasPrefix(line, "| `") {
			keys = append(keys, configKey{strings.Trim(cells[0], "|` "), cells[1], cells[2], cells[3]})
		}
	}
	_, rest, ok := strings.Cut(string(text), "```yaml\n")
	full, _, _ = strings.Cut(rest, "```")
	if !ok || len(keys) < 4 {
		t.Fatalf("%s has %d keys and no file with all of them", name, len(keys))
	}
	return keys, full
}

// binaries is the folder that the lab takes its binaries from, too.
func binaries(t *testing.T) string {
	t.Helper()
	if program := os.Getenv("SHOAL_LAB_PROGRAM"); program != "" {
		return filepath.Dir(program)
	}
	return filepath.Join(root(t), "bin")
}

// check runs `shoal-<process> -check` on a text.
func check(t *testing.T, process, text string) (said string, code int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), process+".yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(binaries(t), "shoal-"+process), "-check", "-config", file).CombinedOutput()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return string(out), exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return string(out), 0
}

// Every process takes the file that its page shows, refuses each key that is misspelled, of another type or out of its
// limits, and tells all faults of a file at once.
func TestConfigFilesAreWhatThePagesSay(t *testing.T) {
	const least = "advertise: [192.0.2.11]\n"
	for _, process := range []string{"ca", "store", "scheduler", "dispatcher", "gateway", "agent", "meshproxy"} {
		t.Run(process, func(t *testing.T) {
			keys, full := configPage(t, process)
			for name, text := range map[string]string{"all keys": full, "the least": least} {
				if said, code := check(t, process, text); code != 0 || !strings.Contains(said, "is valid") {
					t.Errorf("%s: exit code %d, %s", name, code, said)
				}
			}
			slips, wrong := least, ""
			for _, k := range keys {
				slip := k.name[:len(k.name)-2] + k.name[len(k.name)-1:] // the last letter but one is left out
				slips += slip + ": x\n"
				wrong += k.name + ": {a: [b]}\n"
				if strings.Count("\n"+full, "\n"+k.name+": ") != 1 {
					t.Errorf("%s is not once in the file with all keys", k.name)
				}
				for _, bad := range outside(k) {
					if said, code := check(t, process, least+k.name+": "+bad+"\n"); code != misuse || !strings.Contains(said, k.name+": ") {
						t.Errorf("%s: %s, limits %s: exit code %d, %s", k.name, bad, k.limits, code, said)
					}
				}
				for _, good := range inside(k) {
					if said, code := check(t, process, least+k.name+": "+good+"\n"); code != 0 {
						t.Errorf("%s: %s, limits %s: exit code %d, %s", k.name, good, k.limits, code, said)
					}
				}
			}
			said, code := check(t, process, slips)
			for _, k := range keys {
				if code != misuse || !strings.Contains(said, "did you mean "+k.name+"?") {
					t.Errorf("misspelled %s: exit code %d, %s", k.name, code, said)
				}
			}
			said, code = check(t, process, wrong)
			for i, k := range keys {
				place := "[" + strconv.Itoa(i+1) + ":"
				if code != misuse || !regexp.MustCompile(`(?m)^  `+k.name+`: .*wanted .*`+regexp.QuoteMeta(place)).MatchString(said) {
					t.Errorf("wrong type of %s: exit code %d, %s", k.name, code, said)
				}
			}
		})
	}
	readme, err := os.ReadFile(filepath.Join(root(t), "docs/reference/config/README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "```yaml\n")
	bad, rest, _ := strings.Cut(rest, "```")
	_, rest, _ = strings.Cut(rest, "3 faults\n")
	faults, _, ok := strings.Cut(rest, "```")
	if said, code := check(t, "store", bad); code != misuse || !ok || !strings.HasSuffix(said, faults) {
		t.Errorf("the README's file with faults: exit code %d, %s\nthe README says\n%s", code, said, faults)
	}
	if said, code := check(t, "agent", least+"listen: [':1']\n"); code != misuse || !strings.Contains(said, "listens nowhere") {
		t.Errorf("an agent that listens: exit code %d, %s", code, said)
	}
}

// bounds reads "1 to 64" and "at least 50ms"; most is empty without an upper one.
func bounds(k configKey) (least, most string) {
	m := regexp.MustCompile(`^(?:(\d\w*) to (\d\w*)|at least (\d\w*))$`).FindStringSubmatch(k.limits)
	if m == nil {
		return "", ""
	}
	return m[1] + m[3], m[2]
}

// inside are the values at a key's limits.
func inside(k configKey) []string {
	var out []string
	least, most := bounds(k)
	for _, v := range []string{least, most} {
		if v != "" {
			out = append(out, v)
		}
	}
	return out
}

// outside are the values just beyond a key's limits.
func outside(k configKey) []string {
	var out []string
	least, most := bounds(k)
	if least != "" {
		out = append(out, shifted(least, -1))
	}
	if most != "" {
		out = append(out, shifted(most, 1))
	}
	return out
}

// shifted is a number, or a duration in milliseconds, by one more or less.
func shifted(value string, by int) string {
	if n, err := strconv.Atoi(value); err == nil {
		return strconv.Itoa(n + by)
	}
	d, err := time.ParseDuration(value)
	if err != nil {
		return value
	}
	return (d + time.Duration(by)*time.Millisecond).String()
}

// A process whose key others may read does not start, and its log says which file it is and what to do. Mended, it does.
func TestExposedKeyStopsItsProcess(t *testing.T) {
	c := bareHosts(t, 1)
	c.form()
	const key = "/var/lib/shoal/scheduler/identity/key.pem"
	c.on("m1", "chmod", "0640", key)
	if stdout, stderr, code := c.try("m1", "systemctl", "restart", "shoal-scheduler"); code == 0 {
		t.Errorf("the scheduler starts with a key that a group may read: %s%s", stdout, stderr)
	}
	if said := c.on("m1", "tail", "-n", "5", "/var/log/shoal-scheduler.log"); !strings.Contains(said, "chmod 0600 "+key) {
		t.Errorf("its log does not say how to mend that:\n%s", said)
	}
	c.on("m1", "chmod", "0600", key)
	c.on("m1", "systemctl", "restart", "shoal-scheduler")
}

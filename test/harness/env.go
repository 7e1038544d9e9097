package harness

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

const gatewayPort = 2384

// Variable is one environment variable for users of a lab.
type Variable struct{ Name, Value string }

// Env lists what a shell needs to use the lab from the outer machine.
func (l *Lab) Env() ([]Variable, error) {
	state, err := l.load()
	if err != nil {
		return nil, err
	}
	variables := []Variable{
		{"SHOAL_LAB_DIR", l.dir},
		{"SHOAL_LAB_REGISTRY", state.Registry},
		{"SHOAL_LAB_REGISTRY_CA", l.path("registry", "ca.crt")},
	}
	for _, host := range state.Hosts {
		variables = append(variables, Variable{"SHOAL_LAB_IP_" + host.Name, host.IPv4.String()})
	}
	if len(state.Hosts) == 0 || state.Hosts[0].Role != Manager {
		return variables, nil
	}
	first := state.Hosts[0]
	config := filepath.Join(l.hostDir(first.Name), "root", ".config", "shoal")
	return append(variables,
		Variable{"SHOAL_GATEWAY", fmt.Sprintf("https://%s:%d", first.IPv4, gatewayPort)},
		Variable{"SHOAL_CONFIG", config},
		Variable{"SHOAL_CERT_PATH", filepath.Join(config, "contexts", "default")},
	), nil
}

// Export writes variables as a POSIX shell reads them with eval.
func Export(variables []Variable) string {
	var text strings.Builder
	plain := regexp.MustCompile(`^[A-Za-z0-9_./:@%+,=-]*$`)
	for _, variable := range variables {
		value := variable.Value
		if !plain.MatchString(value) {
			value = "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
		}
		fmt.Fprintf(&text, "export %s=%s\n", variable.Name, value)
	}
	return text.String()
}

package lan

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"

	"github.com/shoalproject/shoal/test/harness/enter"
)

// Faults is all that is wrong with the network, apart from cables that are out. It is data, so that every change
// writes the whole rule set anew in one transaction and nothing is ever half in force.
type Faults struct {
	Partitions [][][]string `json:"partitions,omitempty"` // each a list of sides, each side a list of ports
	Isolated   []string     `json:"isolated,omitempty"`   // ports that exchange nothing with anybody
}

// Apply puts exactly these faults in force, for IPv4, IPv6 and ARP alike: the rules match ports, not packets.
func (s Switch) Apply(faults Faults) error {
	rules := faults.rules()
	return enter.Net(s.Namespace, func() error {
		nft := exec.Command("nft", "-f", "-")
		nft.Stdin = strings.NewReader(rules)
		var said bytes.Buffer
		nft.Stdout, nft.Stderr = &said, &said
		if err := nft.Run(); err != nil {
			return fmt.Errorf("set the switch's rules: %w: %s", err, strings.TrimSpace(said.String()))
		}
		return nil
	})
}

// rules is the whole rule set as nft(8) reads it. The first line makes the second one possible the first time.
func (f Faults) rules() string {
	var text strings.Builder
	text.WriteString("table bridge lab\ndelete table bridge lab\ntable bridge lab {\n")
	text.WriteString("\tchain forward {\n\t\ttype filter hook forward priority 0; policy accept;\n")
	for _, port := range f.Isolated {
		fmt.Fprintf(&text, "\t\tiifname %q drop\n\t\toifname %q drop\n", port, port)
	}
	for _, sides := range f.Partitions {
		for i, from := range sides {
			for j, to := range sides {
				if i != j {
					fmt.Fprintf(&text, "\t\tiifname %s oifname %s drop\n", set(from), set(to))
				}
			}
		}
	}
	text.WriteString("\t}\n}\n")
	return text.String()
}

func set(ports []string) string {
	quoted := make([]string, len(ports))
	for i, port := range ports {
		quoted[i] = fmt.Sprintf("%q", port)
	}
	return "{ " + strings.Join(quoted, ", ") + " }"
}

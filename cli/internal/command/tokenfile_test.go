package command_test

import (
	"io/fs"
	"strings"
	"testing"
)

// None of these has a whole token: what is said about it tells whether it was read, and the secret is in no message.
func TestJoinTakesTheTokenFromAFile(t *testing.T) {
	const token = "SHOAL-1-secret"
	for name, c := range map[string]struct {
		in, text string
		mode     fs.FileMode
		args     []string
		want     string
	}{
		"a file":            {text: token + "\n", mode: 0o600, args: []string{"--token-file", "/root/token"}, want: "it is not whole"},
		"read-only":         {text: token, mode: 0o400, args: []string{"--token-file", "/root/token"}, want: "it is not whole"},
		"standard input":    {in: token + "\n", args: []string{"--token-file", "-"}, want: "it is not whole"},
		"nothing comes in":  {args: []string{"--token-file", "-"}, want: "there is no token in the standard input; `shoal join-token -q worker`"},
		"others may read":   {text: token, mode: 0o644, args: []string{"--token-file", "/root/token"}, want: "(its mode is 0644); `chmod 600 /root/token`"},
		"the group may":     {text: token, mode: 0o640, args: []string{"--token-file", "/root/token"}, want: "(its mode is 0640)"},
		"not there":         {args: []string{"--token-file", "/root/token"}, want: "there is no token in /root/token; `shoal join-token -q worker`"},
		"empty":             {text: "\n", mode: 0o600, args: []string{"--token-file", "/root/token"}, want: "there is no token in /root/token"},
		"another file":      {text: strings.Repeat("x", 5000), mode: 0o600, args: []string{"--token-file", "/root/token"}, want: "it has 5000 bytes"},
		"too much comes in": {in: strings.Repeat("x", 5000), args: []string{"--token-file", "-"}, want: "more than 4096 bytes"},
		"a folder":          {text: token, mode: 0o600, args: []string{"--token-file", "/root"}, want: "--token-file /root: this is a folder"},
		"both":              {text: token, mode: 0o600, args: []string{"--token-file", "/root/token", "--token", token}, want: "give --token or --token-file, not both"},
		"neither":           {want: "--token or --token-file is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			write := func(b *bare) {
				if c.mode == 0 {
					return
				}
				if err := b.env.Files.Write("/root/token", []byte(c.text), c.mode); err != nil {
					t.Fatal(err)
				}
			}
			out, said, code := onBare(t, c.in, write, append([]string{"join", "10.0.0.9"}, c.args...)...)
			if code != 1 || out != "" || !strings.Contains(said, c.want) || strings.Contains(said, "secret") {
				t.Errorf("exit code %d, want %q\n%s%s", code, c.want, out, said)
			}
		})
	}
}

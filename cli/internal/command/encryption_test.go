package command_test

import (
	"strings"
	"testing"
	"testing/synctest"
)

// What a person says of encryption is what is shown: Docker's spelling of the option, and the cluster's settings.
func TestEncryption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		defer w.stop()
		for name, option := range map[string]string{"word": "encrypted", "yes": "encrypted=true", "empty": "encrypted=", "no": "encrypted=false"} {
			if _, said, code := w.shoal(t.Context(), "network", "create", "-o", option, name); code != 0 {
				t.Fatalf("%s: %s", option, said)
			}
			want := "true\n"
			if name == "no" {
				want = "\n"
			}
			if out, said, _ := w.shoal(t.Context(), "network", "inspect", "-f", "{{index .Options \"encrypted\"}}", name); out != want {
				t.Errorf("%s: inspect shows %q, want %q %s", option, out, want, said)
			}
		}
		if out, _, _ := w.shoal(t.Context(), "network", "ls", "--format", "{{.Name}} {{.Encrypted}}"); !strings.Contains(out, "word true\n") || !strings.Contains(out, "no false\n") {
			t.Errorf("network ls shows %q", out)
		}
		if _, said, code := w.shoal(t.Context(), "network", "create", "-o", "encrypted=perhaps", "e"); code == 0 || !strings.Contains(said, "encrypted=perhaps is neither true nor false") {
			t.Errorf("exit code %d, said %q", code, said)
		}
		for _, args := range [][]string{{"--encrypt-mesh", "on", "--tunnel-key-life", "12h"}, {"--rotate-tunnel-keys"}} {
			if _, said, code := w.shoal(t.Context(), append([]string{"cluster", "update"}, args...)...); code != 0 {
				t.Fatalf("%s: %s", args, said)
			}
		}
		out, _, _ := w.shoal(t.Context(), "cluster", "inspect")
		for _, part := range []string{`"mesh": true`, `"keyLife": "43200s"`, `"keyRotation": "1"`} {
			if !strings.Contains(out, part) {
				t.Errorf("cluster inspect has no %s:\n%s", part, out)
			}
		}
		if _, said, code := w.shoal(t.Context(), "cluster", "update", "--encrypt-mesh", "maybe"); code == 0 || !strings.Contains(said, "not on or off") {
			t.Errorf("exit code %d, said %q", code, said)
		}
	})
}

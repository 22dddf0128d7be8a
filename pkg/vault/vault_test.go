package vault

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

func keyText(fill byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{fill}, 32))
}

func newVault(t *testing.T, text string) Vault {
	t.Helper()
	var v Vault
	if err := v.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestOpensWhatItSealed(t *testing.T) {
	v := newVault(t, keyText(1))
	sealed := v.Seal("whsec_canary", "wh_1")
	if got, err := v.Open(sealed, "wh_1"); err != nil || got != "whsec_canary" {
		t.Errorf("%q, %v", got, err)
	}
	if bytes.Contains(sealed, []byte("canary")) {
		t.Error("the ciphertext shows the secret")
	}
	if bytes.Equal(sealed, v.Seal("whsec_canary", "wh_1")) {
		t.Error("two sealings are the same")
	}
}

func TestRefusesWhatIsNotItsOwn(t *testing.T) {
	v := newVault(t, keyText(1))
	sealed := v.Seal("whsec_canary", "wh_1")
	if _, err := v.Open(sealed, "wh_2"); err == nil {
		t.Error("it opens for another webhook")
	}
	if _, err := newVault(t, keyText(2)).Open(sealed, "wh_1"); err == nil {
		t.Error("it opens with another key")
	}
	for i := range sealed {
		damaged := bytes.Clone(sealed)
		damaged[i] ^= 1
		if _, err := v.Open(damaged, "wh_1"); err == nil {
			t.Errorf("it opens with a damaged byte %d", i)
		}
		if _, err := v.Open(sealed[:i], "wh_1"); err == nil {
			t.Errorf("it opens after being cut to %d bytes", i)
		}
	}
}

func TestKeysRotate(t *testing.T) {
	before := newVault(t, keyText(1))
	after := newVault(t, keyText(2)+", "+keyText(1))
	if got, err := after.Open(before.Seal("s", "wh_1"), "wh_1"); err != nil || got != "s" {
		t.Errorf("the old key does not open: %q, %v", got, err)
	}
	if _, err := before.Open(after.Seal("s", "wh_1"), "wh_1"); err == nil {
		t.Error("the new key does not seal")
	}
}

func TestKeysAreNeverShown(t *testing.T) {
	for _, text := range []string{"", "x", keyText(1) + ",", keyText(1)[:20], base64.StdEncoding.EncodeToString(make([]byte, 31))} {
		err := new(Vault).UnmarshalText([]byte(text))
		if err == nil {
			t.Errorf("%q is taken", text)
		} else if len(text) > 8 && strings.Contains(err.Error(), text[:8]) {
			t.Errorf("the error shows the key: %v", err)
		}
	}
	v := newVault(t, keyText(7))
	for _, format := range []string{"%v", "%+v", "%s"} {
		if printed := fmt.Sprintf(format, struct{ Key Vault }{v}); strings.Contains(printed, "7") && !strings.Contains(printed, "vault(1 keys)") {
			t.Errorf("%s: %s", format, printed)
		}
	}
}

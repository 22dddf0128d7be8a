package signature

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

// The vector that the reference libraries share.
const (
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTime      = 1614265330
	vectorBody      = `{"test": 2432232314}`
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func TestSignMatchesTheVector(t *testing.T) {
	secret, err := ParseSecret(vectorSecret)
	if err != nil {
		t.Fatal(err)
	}
	if got := Sign(vectorID, time.Unix(vectorTime, 999_999_999), []byte(vectorBody), secret); got != vectorSignature {
		t.Errorf("signature %s, want %s", got, vectorSignature)
	}
}

func TestSeveralSecretsSignSideBySide(t *testing.T) {
	secret, _ := ParseSecret(vectorSecret)
	other := NewSecret()
	at := time.Unix(vectorTime, 0)
	want := Sign(vectorID, at, []byte(vectorBody), other) + " " + vectorSignature
	if got := Sign(vectorID, at, []byte(vectorBody), other, secret); got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

func TestSignWithoutSecretPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("an unsigned message can be made")
		}
	}()
	Sign("id", time.Now(), nil)
}

func TestParseSecret(t *testing.T) {
	of := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for text, ok := range map[string]bool{
		of(24): true, of(32): true, of(64): true, vectorSecret: true,
		"": false, "whsec_": false, of(23): false, of(65): false,
		strings.TrimPrefix(of(32), "whsec_"): false, "whsk_" + of(32)[6:]: false,
		"whsec_" + base64.RawStdEncoding.EncodeToString(make([]byte, 32)):                false,
		"whsec_" + base64.URLEncoding.EncodeToString([]byte(strings.Repeat("\xff", 33))): false,
		"whsec_" + strings.Repeat("A", 20) + " " + strings.Repeat("A", 23) + "=":         false,
		"whsec_not base64 at all": false,
	} {
		_, err := ParseSecret(text)
		if (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
		if err != nil && len(text) > 8 && strings.Contains(err.Error(), text[6:]) {
			t.Errorf("the error about %q repeats it", text)
		}
	}
}

func TestSecretsAreMaskedAndRoundTrip(t *testing.T) {
	secret := NewSecret()
	again, err := ParseSecret(secret.Reveal())
	if err != nil || again.Reveal() != secret.Reveal() {
		t.Errorf("%v, %v", again, err)
	}
	if secret.Reveal() == NewSecret().Reveal() {
		t.Error("two secrets are the same")
	}
	encoded := strings.TrimPrefix(secret.Reveal(), "whsec_")
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if printed := fmt.Sprintf(format, secret); strings.Contains(printed, encoded) {
			t.Errorf("%s shows the secret: %s", format, printed)
		}
		if printed := fmt.Sprintf(format, []Secret{secret}); strings.Contains(printed, encoded) {
			t.Errorf("%s of a list shows the secret: %s", format, printed)
		}
	}
	if printed := fmt.Sprintf("%x %d", secret, secret); strings.Contains(printed, fmt.Sprintf("%x", secret.key)) || strings.Contains(printed, strings.Trim(fmt.Sprint(secret.key), "[]")) {
		t.Errorf("the bytes of the secret are shown: %s", printed)
	}
}

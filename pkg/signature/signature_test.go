package signature

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

// The vector that the reference libraries share, and the one of Svix for asymmetric keys, of the
// same message.
const (
	vectorID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorTime      = 1614265330
	vectorBody      = `{"test": 2432232314}`
	vectorSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	vectorSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

	vectorKey          = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
	vectorPublic       = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="
	vectorKeySignature = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
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

func TestSignMatchesTheVectorOfKeys(t *testing.T) {
	key, err := ParseKey(vectorKey)
	if err != nil {
		t.Fatal(err)
	}
	if got := Sign(vectorID, time.Unix(vectorTime, 0), []byte(vectorBody), key); got != vectorKeySignature {
		t.Errorf("signature %s, want %s", got, vectorKeySignature)
	}
	if key.Public() != vectorPublic {
		t.Errorf("public key %s, want %s", key.Public(), vectorPublic)
	}
}

// TestAllSignersSignSideBySide: while they rotate, and while a receiver moves from one kind to the other.
func TestAllSignersSignSideBySide(t *testing.T) {
	secret, _ := ParseSecret(vectorSecret)
	key, _ := ParseKey(vectorKey)
	newSecret, newKey := NewSecret(), NewKey()
	at := time.Unix(vectorTime, 0)
	want := Sign(vectorID, at, []byte(vectorBody), newKey) + " " + vectorKeySignature + " " +
		Sign(vectorID, at, []byte(vectorBody), newSecret) + " " + vectorSignature
	if got := Sign(vectorID, at, []byte(vectorBody), newKey, key, newSecret, secret); got != want {
		t.Errorf("signature %s, want %s", got, want)
	}
}

// TestPublicKeysVerify: with nothing but the text of the public key, as a receiver does it.
func TestPublicKeysVerify(t *testing.T) {
	key := NewKey()
	public, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(key.Public(), "whpk_"))
	if err != nil || len(public) != ed25519.PublicKeySize {
		t.Fatalf("%d bytes, %v", len(public), err)
	}
	header := Sign(vectorID, time.Unix(vectorTime, 0), []byte(vectorBody), key)
	made, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(header, "v1a,"))
	if err != nil {
		t.Fatal(err)
	}
	signed := fmt.Sprintf("%s.%d.%s", vectorID, vectorTime, vectorBody)
	if !ed25519.Verify(public, []byte(signed), made) {
		t.Error("the signature is not of the public key")
	}
	for _, other := range []string{strings.Replace(signed, "msg_", "msg-", 1), strings.Replace(signed, "1614265330", "1614265331", 1), signed + " ", "\ufeff" + signed} {
		if ed25519.Verify(public, []byte(other), made) {
			t.Errorf("the signature holds for %q too", other)
		}
	}
}

func TestSignWithoutASignerPanics(t *testing.T) {
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
		"whsec_not base64 at all": false, vectorSecret + "\n": false, vectorSecret[:20] + "\r\n" + vectorSecret[20:]: false,
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

func TestParseKey(t *testing.T) {
	raw, _ := base64.StdEncoding.DecodeString(vectorKey[len("whsk_"):])
	foreign := append(raw[:32:32], NewKey().private()[32:]...)
	text := func(raw []byte) string { return "whsk_" + base64.StdEncoding.EncodeToString(raw) }
	for given, ok := range map[string]bool{
		vectorKey: true, NewKey().Reveal(): true,
		"": false, "whsk_": false, vectorPublic: false, vectorSecret: false, vectorKey[len("whsk_"):]: false,
		text(raw[:32]): false, text(raw[:63]): false, text(append(raw, 0)): false, text(foreign): false,
		vectorKey + "\n": false, strings.TrimRight(vectorKey, "="): false, "whsk_" + base64.URLEncoding.EncodeToString(raw): false,
	} {
		_, err := ParseKey(given)
		if (err == nil) != ok {
			t.Errorf("%q: %v", given, err)
		}
		if err != nil && len(given) > 8 && strings.Contains(err.Error(), given[5:]) {
			t.Errorf("the error about %q repeats it", given)
		}
	}
}

func TestParseTellsThemApart(t *testing.T) {
	for _, want := range []Signer{NewSecret(), NewKey()} {
		got, err := Parse(want.Reveal())
		if err != nil || got.Reveal() != want.Reveal() {
			t.Errorf("%T became %T: %v", want, got, err)
		}
	}
	for _, text := range []string{"", "whsk_", "whsec_", vectorPublic} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q became %T", text, got)
		}
	}
}

// FuzzParse: what is taken has one spelling, and can sign.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{vectorSecret, vectorKey, vectorPublic, "whsec_", "whsk_", "whsec_\x00", vectorSecret + "\n", "whsec_" + strings.Repeat("AAAA", 9)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		signer, err := Parse(text)
		if err != nil {
			if len(text) > 10 && strings.Contains(err.Error(), text) {
				t.Errorf("the error repeats %q: %v", text, err)
			}
			return
		}
		if signer.Reveal() != text {
			t.Errorf("%q became %q", text, signer.Reveal())
		}
		if header := Sign("id", time.Unix(0, 0), nil, signer); !strings.HasPrefix(header, "v1") {
			t.Errorf("%q signs %q", text, header)
		}
	})
}

func TestTheyAreMaskedAndRoundTrip(t *testing.T) {
	for _, makes := range []func() Signer{func() Signer { return NewSecret() }, func() Signer { return NewKey() }} {
		signer := makes()
		again, err := Parse(signer.Reveal())
		if err != nil || again.Reveal() != signer.Reveal() {
			t.Errorf("%v, %v", again, err)
		}
		if signer.Reveal() == makes().Reveal() {
			t.Error("two are the same")
		}
		_, encoded, _ := strings.Cut(signer.Reveal(), "_")
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b"} {
			for _, value := range []any{signer, []Signer{signer}, struct{ signer Signer }{signer}, &struct{ signers []Signer }{[]Signer{signer}}} {
				printed := fmt.Sprintf(format, value)
				for _, forbidden := range []string{encoded, string(raw), fmt.Sprintf("%x", raw[:8]), fmt.Sprintf("%X", raw[:8]), strings.Trim(fmt.Sprint(raw[:8]), "[]")} {
					if strings.Contains(printed, forbidden) {
						t.Errorf("%s of %T shows it: %s", format, value, printed)
					}
				}
			}
		}
	}
}

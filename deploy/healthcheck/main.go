// Command healthcheck asks a service of the same container whether it can do its work: an image
// without a shell has nothing else that could.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	if err := check(os.Getenv("METRICS_ADDR")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func check(address string) error {
	if address == "" || address == "off" {
		return fmt.Errorf("METRICS_ADDR is %q: health is not served", address)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("METRICS_ADDR: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	client := http.Client{Timeout: 4 * time.Second}
	response, err := client.Get("http://" + net.JoinHostPort(host, port) + "/readyz") //nolint:gosec,noctx // G704: the operator named the address; the client has a timeout
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4096))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", strings.TrimSpace(string(text)))
	}
	return nil
}

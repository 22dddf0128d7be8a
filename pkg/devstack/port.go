package devstack

import (
	"fmt"
	"net"
	"strconv"
)

// claim returns the port to use: the wanted one if it is free, any free one for 0.
// It is not held, so a server has to survive losing it before it listens itself.
func (e Engine) claim(name string) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(e.Port)))
	if err != nil {
		hint := ""
		if e.Variable != "" {
			hint = fmt.Sprintf("; set %s to another one, or to 0 for any", e.Variable)
		}
		return 0, fmt.Errorf("start %s: port %d is taken%s: %w", name, e.Port, hint, err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

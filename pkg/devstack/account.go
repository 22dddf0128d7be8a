//go:build !linux

package devstack

import (
	"errors"
	"os"
	"syscall"
)

// account is whom Postgres runs as: the user of this process.
type account struct{}

func findAccount() (account, error) {
	if os.Geteuid() == 0 {
		return account{}, errors.New("Postgres refuses to run as root: run this as another user")
	}
	return account{}, nil
}

func (account) own(string) error { return nil }

func (account) attributes() *syscall.SysProcAttr { return ownGroup() }

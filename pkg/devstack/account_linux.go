package devstack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// account is whom Postgres runs as, because it refuses to be root.
//
// If this process is root, Postgres runs in a user namespace in which root has the
// number of an ordinary user: to Postgres it is one, while to the rest of the system
// its files are root's, and it reaches what root can reach. Where namespaces are
// refused, as in many containers, it runs as nobody, who has to own its folder and
// be let into the folders above.
type account struct {
	namespace bool
	nobody    bool
}

const (
	ordinary = 1000  // root's number in the namespace; any but 0 would do
	nobody   = 65534 // user and group
)

func findAccount() (account, error) {
	if os.Geteuid() != 0 {
		return account{}, nil
	}
	a := account{namespace: true}
	probe := exec.Command("/bin/sh", "-c", ":")
	probe.SysProcAttr = a.attributes()
	if probe.Run() == nil {
		return a, nil
	}
	return account{nobody: true}, nil
}

func (a account) attributes() *syscall.SysProcAttr {
	attr := ownGroup()
	switch {
	case a.namespace:
		attr.Cloneflags = syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: ordinary, HostID: 0, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: ordinary, HostID: os.Getegid(), Size: 1}}
	case a.nobody:
		attr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return attr
}

// own makes the account the owner of a folder and of all in it.
func (a account) own(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	owner := 0
	if a.nobody {
		owner = nobody
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if int(info.Sys().(*syscall.Stat_t).Uid) == owner {
			return nil
		}
		return os.Lchown(path, owner, owner)
	})
	if err != nil {
		return fmt.Errorf("give %s to the user of Postgres: %w", dir, err)
	}
	if !a.nobody {
		return nil
	}
	enter := exec.Command("/bin/sh", "-c", `cd "$1"`, "sh", dir)
	enter.SysProcAttr = a.attributes()
	if out, err := enter.CombinedOutput(); err != nil {
		return fmt.Errorf("as root, Postgres has to run as nobody, and nobody may not enter %s: %s: %w", dir, out,
			errors.Join(err, errors.New("open the folders above it, or run this as an ordinary user")))
	}
	return nil
}

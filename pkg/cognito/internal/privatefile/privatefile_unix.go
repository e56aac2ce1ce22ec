//go:build !windows

package privatefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openOwn opens a regular file of this user that nobody else may read or write, and that is no symbolic link: whoever made
// that could have another file read. What is checked is what is open, not what the path leads to a moment later.
func openOwn(path string) (*os.File, error) {
	// O_NONBLOCK, as opening a pipe waits for somebody who writes to it.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.EMLINK) { // the latter on FreeBSD
		return nil, fmt.Errorf("%s is a symbolic link, want a file\nhint: remove it", path)
	}
	if err != nil {
		return nil, err
	}
	if err := checkOwn(f, path); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkOwn(f *os.File, path string) error {
	info, err := f.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is %v, want a regular file\nhint: remove it", path, info.Mode().Type())
	case owner(info) != os.Geteuid():
		return fmt.Errorf("%s belongs to user %d, want it to be user %d's\nhint: remove it", path, owner(info), os.Geteuid())
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%s has mode %04o, want 0600, as others must not read or write it\nhint: if nobody else has had access, run: chmod 600 %q", path, info.Mode().Perm(), path)
	}
	return nil
}

// checkDir checks a folder: whoever may write to it can replace what is in it. That of another user than root is not ours.
func checkDir(dir string) error {
	info, err := os.Stat(dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is no folder", dir)
	case owner(info) != os.Geteuid() && owner(info) != 0:
		return fmt.Errorf("folder %s belongs to user %d, want it to be user %d's\nhint: use a folder of your own", dir, owner(info), os.Geteuid())
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("folder %s has mode %04o, want 0700, as others must not write to it\nhint: use a folder of your own, or run: chmod 700 %q", dir, info.Mode().Perm(), dir)
	}
	return nil
}

func owner(info fs.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return -1
}

// syncDir makes a rename last. File systems that cannot are none of ours to mend.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

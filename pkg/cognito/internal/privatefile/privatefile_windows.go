package privatefile

import (
	"fmt"
	"os"
)

func openOwn(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is %v, want a regular file\nhint: remove it", path, info.Mode().Type())
	}
	return os.Open(path)
}

func checkDir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is no folder", dir)
	}
	return err
}

func syncDir(string) {}

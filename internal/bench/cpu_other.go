//go:build !linux

package main

import (
	"errors"
	"runtime"
	"syscall"
	"time"
)

var errLinux = errors.New("found " + runtime.GOOS + ", want Linux, whose account of CPU time this measures by")

func cpu(int) (time.Duration, error) { return 0, errLinux }

func rss(int) (int64, error) { return 0, errLinux }

func kernel() string { return runtime.GOOS }

func attributes() *syscall.SysProcAttr { return nil }

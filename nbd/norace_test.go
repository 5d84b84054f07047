//go:build !race

package nbd

const raced = false

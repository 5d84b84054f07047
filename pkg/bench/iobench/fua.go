package iobench

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"nbdcrypt/nbd/nbdclient"
)

// fua writes with FUA at random offsets, so many requests at once on each connection.
func fua(ctx context.Context, c column, uri string, connections int, t turn) (done, error) {
	clients, err := dialMany(ctx, connections, func(int) string { return uri })
	defer hangUp(clients)
	if err != nil {
		return done{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, t.length+patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { hangUp(clients) })()
	var all sync.WaitGroup
	var ops atomic.Int64
	failed := make(chan error, connections*c.depth)
	begun := time.Now()
	for i := range connections * c.depth {
		all.Go(func() {
			n, err := writeFUA(clients[i/c.depth], c.block, t, begun.Add(t.length), uint64(i))
			ops.Add(n)
			failed <- err
		})
	}
	all.Wait()
	took := time.Since(begun)
	close(failed)
	for one := range failed {
		err = errors.Join(err, one)
	}
	return done{bytes: ops.Load() * int64(c.block), ops: ops.Load(), took: took}, err
}

func writeFUA(client *nbdclient.Client, block int, t turn, until time.Time, seed uint64) (n int64, err error) {
	rng := rand.New(rand.NewPCG(seed, t.seed))
	data := noise(block, rng)
	for time.Now().Before(until) {
		if _, err := client.WriteAtFUA(data, rng.Int64N(t.size/int64(block))*int64(block)); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// fill writes random data to the whole disk, so that nothing in it is a hole or can be told from another disk's by its content.
func fill(ctx context.Context, uri string, size int64) error {
	const piece, depth = 1 << 20, 4
	client, err := nbdclient.Dial(ctx, uri)
	if err != nil {
		return err
	}
	defer func() { _ = client.Disconnect() }()
	defer context.AfterFunc(ctx, func() { _ = client.Disconnect() })()
	var all sync.WaitGroup
	failed := make([]error, depth)
	for i := range depth {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), rand.Uint64()))
			for off := int64(i) * piece; off < size && failed[i] == nil; off += depth * piece {
				_, failed[i] = client.WriteAt(noise(int(min(piece, size-off)), rng), off)
			}
		})
	}
	all.Wait()
	return errors.Join(failed...)
}

// noise is data that doesn't compress.
func noise(n int, rng *rand.Rand) []byte {
	data := make([]byte, 0, n+8)
	for len(data) < n {
		data = binary.LittleEndian.AppendUint64(data, rng.Uint64())
	}
	return data[:n]
}

func dialMany(ctx context.Context, n int, uri func(int) string) (clients []*nbdclient.Client, err error) {
	for i := range n {
		client, err := nbdclient.Dial(ctx, uri(i))
		if err != nil {
			return clients, err
		}
		clients = append(clients, client)
	}
	return clients, nil
}

func hangUp(clients []*nbdclient.Client) {
	var all sync.WaitGroup
	for _, client := range clients {
		all.Go(func() { _ = client.Disconnect() }) // the server may be gone: nothing is lost
	}
	all.Wait()
}

// Yardstick of the benchmarks: a tight consumer of ui_events, from Kafka into ClickHouse.
//
// It reads as a consumer group with franz-go, decodes the Avro values by hand, and inserts blocks compressed by LZ4 with
// ch-go. It checks nothing, hides nothing, and stores at most once: offsets are committed when records are read. So it
// shows about what the machine can do, and not what a pipeline should do.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ClickHouse/ch-go"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	blockRows   = 100_000
	pollRecords = 20_000
	idle        = 100 * time.Millisecond // a poll without records: the topic's end, so what is there is stored
	linger      = time.Second            // longest time that rows wait for a block to fill, as for all contenders
	fetchBytes  = 4 << 20                // most bytes of a partition in a fetch
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "yardstick:", err)
		os.Exit(1)
	}
}

// run consumes until the context ends or an error occurs.
func run(ctx context.Context) error {
	table, err := ch.Dial(ctx, ch.Options{
		Address:     os.Getenv("CHIMERA_CLICKHOUSE__HOST") + ":" + os.Getenv("CHIMERA_CLICKHOUSE__PORT"),
		Database:    os.Getenv("CHIMERA_CLICKHOUSE__DATABASE"),
		Compression: ch.CompressionLZ4,
		ReadTimeout: ch.NoTimeout, // an insert may take long on a busy machine
		Settings:    []ch.Setting{{Key: "async_insert", Value: "0"}},
	})
	if err != nil {
		return err
	}
	topic, err := kgo.NewClient(
		kgo.SeedBrokers(os.Getenv("CHIMERA_KAFKA__BOOTSTRAP_SERVERS")),
		kgo.ConsumerGroup(os.Getenv("CHIMERA_KAFKA__GROUP_ID")),
		kgo.ConsumeTopics(os.Getenv("BENCH_TOPIC")),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxPartitionBytes(fetchBytes),
	)
	if err != nil {
		return err
	}
	defer topic.Close()

	// Two blocks: one is filled while the other is stored.
	empty, full := make(chan *block, 2), make(chan *block, 1)
	empty <- newBlock()
	empty <- newBlock()
	failed := make(chan error, 1)
	go store(ctx, table, full, empty, failed)
	return fill(ctx, topic, full, empty, failed)
}

// store inserts each full block.
func store(ctx context.Context, table *ch.Client, full <-chan *block, empty chan<- *block, failed chan<- error) {
	for rows := range full {
		input := rows.input()
		if err := table.Do(ctx, ch.Query{Body: input.Into("ui_events"), Input: input}); err != nil {
			failed <- err
			return
		}
		rows.reset()
		empty <- rows
	}
}

// fill reads the topic into blocks, and hands over each block that is full, old, or the last for now.
func fill(
	ctx context.Context, topic *kgo.Client, full chan<- *block, empty <-chan *block, failed <-chan error,
) error {
	rows, begun := <-empty, time.Now()
	for {
		poll, cancel := context.WithTimeout(ctx, idle)
		fetched := topic.PollRecords(poll, pollRecords)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if rows.len() == 0 {
			begun = time.Now()
		}
		for read := fetched.RecordIter(); !read.Done(); {
			if record := read.Next(); !rows.append(record.Value) {
				return fmt.Errorf("can't decode partition %d, offset %d", record.Partition, record.Offset)
			}
		}
		atEnd := fetched.NumRecords() == 0
		if rows.len() == 0 || (rows.len() < blockRows && !atEnd && time.Since(begun) < linger) {
			continue
		}
		full <- rows
		select {
		case rows = <-empty:
		case err := <-failed:
			return err
		}
	}
}

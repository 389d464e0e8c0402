package main

import (
	"encoding/binary"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/google/uuid"
)

const frameBytes = 5 // Confluent's: a zero and a schema id; the topic has one schema

// block holds rows of ui_events as columns.
type block struct {
	ts            proto.ColDateTime64
	sessionID     proto.ColUUID
	commitSHA     proto.ColFixedStr
	eventType     *proto.ColLowCardinality[string]
	latencyMS     proto.ColUInt32
	userAgent     proto.ColStr
	metadata      proto.ColStr
	schemaVersion proto.ColUInt8
	eventTypes    map[string]string // a look-up by bytes needs no copy of them
}

func newBlock() *block {
	rows := &block{
		commitSHA: proto.ColFixedStr{Size: 40}, eventType: new(proto.ColStr).LowCardinality(),
		eventTypes: map[string]string{},
	}
	rows.ts.WithPrecision(proto.PrecisionMilli)
	return rows
}

func (b *block) len() int { return len(b.latencyMS) }

func (b *block) input() proto.Input {
	return proto.Input{
		{Name: "ts", Data: &b.ts},
		{Name: "session_id", Data: &b.sessionID},
		{Name: "commit_sha", Data: &b.commitSHA},
		{Name: "event_type", Data: b.eventType},
		{Name: "latency_ms", Data: &b.latencyMS},
		{Name: "user_agent", Data: &b.userAgent},
		{Name: "metadata", Data: &b.metadata},
		{Name: "schema_version", Data: &b.schemaVersion},
	}
}

func (b *block) reset() { input := b.input(); input.Reset() }

// append decodes a framed Avro value as one more row; it reports whether the value has the layout of ui_events.
func (b *block) append(value []byte) bool {
	if len(value) < frameBytes {
		return false
	}
	read := cursor{rest: value[frameBytes:]}
	ts, session, sha, kind := read.long(), read.text(), read.text(), read.text()
	latency, agent, metadata, version := read.long(), read.text(), read.text(), read.long()
	id, parsed := parseUUID(session)
	if read.failed || !parsed || len(sha) != b.commitSHA.Size {
		return false
	}
	name, known := b.eventTypes[string(kind)]
	if !known {
		name = string(kind)
		b.eventTypes[name] = name
	}
	b.ts.AppendRaw(proto.DateTime64(ts))
	b.sessionID = append(b.sessionID, id)
	b.commitSHA.Append(sha)
	b.eventType.Append(name)
	b.latencyMS = append(b.latencyMS, uint32(latency))
	b.userAgent.AppendBytes(agent)
	b.metadata.AppendBytes(metadata)
	b.schemaVersion = append(b.schemaVersion, uint8(version))
	return true
}

// cursor reads Avro's binary encoding.
type cursor struct {
	rest   []byte
	failed bool
}

func (c *cursor) long() int64 {
	value, size := binary.Varint(c.rest) // Avro's zigzag varint is Go's
	if size <= 0 {
		c.failed = true
		return 0
	}
	c.rest = c.rest[size:]
	return value
}

func (c *cursor) text() []byte {
	size := c.long()
	if size < 0 || size > int64(len(c.rest)) {
		c.failed = true
		return nil
	}
	text := c.rest[:size]
	c.rest = c.rest[size:]
	return text
}

// parseUUID reads the usual form with hyphens.
func parseUUID(text []byte) (uuid.UUID, bool) {
	if len(text) != 36 {
		return uuid.UUID{}, false
	}
	var id uuid.UUID
	place := 0
	for i := range id {
		if place == 8 || place == 13 || place == 18 || place == 23 {
			place++
		}
		high, low := digits[text[place]], digits[text[place+1]]
		if high|low > 15 {
			return uuid.UUID{}, false
		}
		id[i] = high<<4 | low
		place += 2
	}
	return id, true
}

// digits has the value of each hexadecimal digit, and 255 for other bytes.
var digits = func() (values [256]byte) {
	for i := range values {
		values[i] = 255
	}
	for i, digit := range []byte("0123456789abcdef") {
		values[digit] = byte(i)
	}
	for i, digit := range []byte("ABCDEF") {
		values[digit] = byte(10 + i)
	}
	return values
}()

//! The compiled core: finds the records in Kafka's batches, and decodes and checks Avro values by column.
//!
//! It does the usual case of `transport/batch_format.py`, `decode/cursor.py`, `decode/validate.py`, `privacy/metadata.py`.
//! What isn't as it should be is left to them: a batch is reported, a value is marked. They explain it or find that it
//! is right, so no verdict comes from here. `columns/core.py` has the other side of this interface.
//!
//! Built with checks of bounds and overflow (ReleaseSafe): a mistake in here ends the process, and stores nothing.

const std = @import("std");

const Bad = error{Bad};

/// Bytes with a position that never passes their end.
const Reader = struct {
    data: []const u8,
    at: usize,

    fn left(self: *const Reader) usize {
        return self.data.len - self.at;
    }

    fn byte(self: *Reader) Bad!u8 {
        if (self.at >= self.data.len) return error.Bad;
        const value = self.data[self.at];
        self.at += 1;
        return value;
    }

    fn bytes(self: *Reader, count: usize) Bad![]const u8 {
        if (count > self.left()) return error.Bad;
        const value = self.data[self.at .. self.at + count];
        self.at += count;
        return value;
    }

    /// Read a zigzag varint of at most 64 bits.
    inline fn number(self: *Reader, comptime shortest: bool) Bad!i64 {
        if (self.at < self.data.len and self.data[self.at] < 0x80) { // as most of them are
            self.at += 1;
            return unzigzag(self.data[self.at - 1]);
        }
        if (self.left() < 8) return self.longNumber(shortest);
        const word = std.mem.readInt(u64, self.data[self.at..][0..8], .little);
        const stops = ~word & 0x8080808080808080;
        if (stops == 0) return self.longNumber(shortest);
        const count = (@as(u7, @ctz(stops)) >> 3) + 1;
        // Close the gaps between groups of 7 bits: 8 bytes become 4 x 14, 2 x 28, then 1 x 56 bits.
        var value = word & (stops ^ (stops -% 1)) & 0x7F7F7F7F7F7F7F7F;
        value = (value & 0x007F007F007F007F) | ((value & 0x7F007F007F007F00) >> 1);
        value = (value & 0x00003FFF00003FFF) | ((value & 0x3FFF00003FFF0000) >> 2);
        value = (value & 0x000000000FFFFFFF) | ((value & 0x0FFFFFFF00000000) >> 4);
        if (shortest and value >> @intCast(7 * (count - 1)) == 0) return error.Bad;
        self.at += count;
        return unzigzag(value);
    }

    /// Read a varint byte by byte.
    noinline fn longNumber(self: *Reader, comptime shortest: bool) Bad!i64 {
        var value: u64 = 0;
        var count: usize = 0;
        while (true) : (count += 1) {
            const next = try self.byte();
            if (count == 9) {
                if (next != 1) return error.Bad;
                value |= @as(u64, 1) << 63;
                break;
            }
            value |= @as(u64, next & 0x7F) << @intCast(7 * count);
            if (next < 0x80) {
                if (shortest and next == 0 and count > 0) return error.Bad;
                break;
            }
        }
        return unzigzag(value);
    }

    fn unzigzag(value: u64) i64 {
        const half: i64 = @intCast(value >> 1);
        return if (value & 1 == 1) ~half else half;
    }

    /// Read a length and the bytes behind it.
    fn span(self: *Reader) Bad![]const u8 {
        const length = try self.number(true);
        if (length < 0) return error.Bad;
        return self.bytes(@intCast(length));
    }
};

// Kafka's batches.

/// A batch whose records are decompressed; as `columns/core.py` has it.
const Batch = extern struct {
    start: u64,
    stop: u64,
    records: i64,
    last_delta: i64,
    base_offset: i64,
    base_time: i64,
    append_time: i64,
    appended: u64,
};

/// Where the fields of the records go: an array for each, one element for each record.
const Places = extern struct {
    offsets: [*]i64,
    times: [*]i64,
    key_starts: [*]i64,
    key_lengths: [*]i64,
    value_starts: [*]i64,
    value_lengths: [*]i64,
    header_starts: [*]i64,
    header_lengths: [*]i64,
};

/// Find the records of batches; false if something isn't as Kafka's format has it.
export fn chimera_records(
    data: [*]const u8,
    size: u64,
    batches: [*]const Batch,
    count: u64,
    places: *const Places,
    capacity: u64,
) bool {
    var row: usize = 0;
    for (batches[0..count]) |*batch| {
        if (batch.records < 0 or batch.start > batch.stop or batch.stop > size) return false;
        const records: usize = @intCast(batch.records);
        if (records > capacity - row) return false;
        find(data[0..batch.stop], batch, records, places, row) catch return false;
        row += records;
    }
    return row == capacity;
}

fn find(data: []const u8, batch: *const Batch, records: usize, places: *const Places, first: usize) Bad!void {
    var all = Reader{ .data = data, .at = batch.start };
    const dense = batch.last_delta == batch.records - 1;
    var before: i64 = -1;
    for (0..records) |number| {
        const length = try all.number(false);
        if (length < 0) return error.Bad;
        const begin = all.at;
        _ = try all.bytes(@intCast(length));
        var record = Reader{ .data = data[0..all.at], .at = begin };
        const row = first + number;
        _ = try record.byte();
        const since = try record.number(false);
        const delta = try record.number(false);
        if (delta <= before or delta > batch.last_delta or (dense and delta != before + 1)) return error.Bad;
        before = delta;
        places.offsets[row] = batch.base_offset +% delta;
        places.times[row] = if (batch.appended != 0) batch.append_time else batch.base_time +% since;
        places.key_lengths[row] = try nullable(&record, &places.key_starts[row]);
        places.value_lengths[row] = try nullable(&record, &places.value_starts[row]);
        places.header_starts[row] = @intCast(record.at);
        places.header_lengths[row] = @intCast(record.left());
        const headers = try record.number(false);
        if (headers < 0) return error.Bad;
        var seen: i64 = 0;
        while (seen < headers) : (seen += 1) {
            var start: i64 = undefined;
            if (try nullable(&record, &start) < 0) return error.Bad;
            _ = try nullable(&record, &start);
        }
        if (record.left() != 0) return error.Bad;
    }
    if (all.at != batch.stop) return error.Bad;
}

/// Read a length, or a negative one for null, and the bytes behind it.
fn nullable(record: *Reader, start: *i64) Bad!i64 {
    const length = try record.number(false);
    start.* = @intCast(record.at);
    if (length < 0) return -1;
    _ = try record.bytes(@intCast(length));
    return length;
}

// Avro's values.

const Kind = enum(u32) { skip, int, float, double, boolean, uuid, decimal, closed, fixed, text, bytes, _ };
const Written = enum(u32) { boolean, int, long, float, double, string, bytes, _ };

/// A field as it is written, and the column that its values go to; as `columns/core.py` has it.
const Field = extern struct {
    written: Written,
    kind: Kind,
    low: i64,
    high: i64,
    float_low: f64,
    float_high: f64,
    /// Most bytes of a text.
    most: u64,
    /// Bytes of a fixed text.
    width: u64,
    /// Of a closed set: its values, one after the other. Of a fixed text: one byte for each byte, 1 if it is allowed.
    allowed: [*]const u8,
    allowed_ends: [*]const u64,
    allowed_count: u64,
    /// The column.
    values: [*]u8,
    /// Of a text: start and length of each distinct value in `texts`, in the order of their first rows; `values` has
    /// their numbers. There is room for `most_distinct`. Of bytes: start and length of each row's value.
    starts: [*]i64,
    lengths: [*]i64,
    distinct: u64,
    most_distinct: u64,
    /// Of a text: the distinct values, one after the other.
    texts: [*]u8,
    texts_used: u64,
    texts_size: u64,
    /// Of a text: numbers of distinct values plus one, by hash; zeros at first. Its size is a power of two.
    table: [*]u32,
    table_size: u64,

    fn put(self: *const Field, comptime T: type, row: usize, value: T) void {
        const column: [*]align(1) T = @ptrCast(self.values);
        column[row] = value;
    }
};

/// Decode values by column, and mark those that the caller must decode in another way.
export fn chimera_decode(
    data: [*]const u8,
    size: u64,
    starts: [*]const i64,
    lengths: [*]const i64,
    rows: u64,
    fields: [*]Field,
    count: u64,
    seed: u64,
    marks: [*]u8,
) void {
    const all = data[0..size];
    for (0..rows) |row| {
        marks[row] = 0;
        decode(all, starts[row], lengths[row], fields[0..count], row, seed) catch {
            marks[row] = 1;
            clear(fields[0..count], row);
        };
    }
}

/// Leave a defined value in the columns of a marked row.
fn clear(fields: []const Field, row: usize) void {
    for (fields) |*field| switch (field.kind) {
        .closed, .text => field.put(u32, row, 0),
        else => {},
    };
}

fn decode(all: []const u8, start: i64, length: i64, fields: []Field, row: usize, seed: u64) Bad!void {
    if (start < 0 or length < 0 or start > all.len or length > all.len - @as(usize, @intCast(start))) return error.Bad;
    var value = Reader{ .data = all[0..@intCast(start + length)], .at = @intCast(start) };
    for (fields) |*field| switch (field.written) {
        .boolean => try booleans(field, row, try value.byte()),
        .int, .long => try integers(field, row, try value.number(true)),
        .float => try floats(f32, u32, field, row, try value.bytes(4)),
        .double => try floats(f64, u64, field, row, try value.bytes(8)),
        .string, .bytes => try texts(field, row, try value.span(), value.at, seed),
        _ => return error.Bad,
    };
    if (value.left() != 0) return error.Bad;
}

fn booleans(field: *const Field, row: usize, value: u8) Bad!void {
    if (value > 1) return error.Bad;
    if (field.kind == .boolean) field.put(u8, row, value);
}

fn integers(field: *const Field, row: usize, value: i64) Bad!void {
    if (field.written == .int and (value < std.math.minInt(i32) or value > std.math.maxInt(i32))) return error.Bad;
    if (field.kind != .int) return;
    if (value < field.low or value > field.high) return error.Bad;
    field.put(i64, row, value);
}

fn floats(comptime T: type, comptime Bits: type, field: *const Field, row: usize, octets: []const u8) Bad!void {
    const value: T = @bitCast(std.mem.readInt(Bits, octets[0..@sizeOf(T)], .little));
    if (field.kind != .float and field.kind != .double) return;
    if (!std.math.isFinite(value)) return error.Bad;
    if (value < @as(T, @floatCast(field.float_low)) or value > @as(T, @floatCast(field.float_high))) return error.Bad;
    field.put(T, row, value);
}

fn texts(field: *Field, row: usize, text: []const u8, stop: usize, seed: u64) Bad!void {
    switch (field.kind) {
        .skip => {},
        .uuid => field.put([16]u8, row, try uuid(text)),
        .decimal => try decimals(field, row, text),
        .closed => try closed(field, row, text),
        .fixed => try fixed(field, row, text),
        .text => try open(field, row, text, seed),
        .bytes => {
            field.starts[row] = @intCast(stop - text.len);
            field.lengths[row] = @intCast(text.len);
        },
        else => return error.Bad,
    }
}

/// Read a UUID as text: hexadecimal digits of either case, and four dashes.
fn uuid(text: []const u8) Bad![16]u8 {
    if (text.len != 36) return error.Bad;
    const form = text[0..36];
    var octets: [16]u8 = undefined;
    var wrong: u8 = (form[8] ^ '-') | (form[13] ^ '-') | (form[18] ^ '-') | (form[23] ^ '-');
    inline for (0..16) |number| {
        const at = 2 * number + comptime dashes(number);
        const high = digits[form[at]];
        const low = digits[form[at + 1]];
        wrong |= (high | low) & 0xF0;
        octets[number] = (high << 4) | (low & 0xF);
    }
    return if (wrong != 0) error.Bad else octets;
}

/// Count the dashes before an octet of a UUID.
fn dashes(number: usize) usize {
    return @as(usize, @intFromBool(number > 3)) + @intFromBool(number > 5) + @intFromBool(number > 7) + @intFromBool(number > 9);
}

/// Value of each hexadecimal digit, 0xFF of all else.
const digits = table: {
    var found: [256]u8 = @splat(0xFF);
    for ("0123456789abcdef", 0..) |digit, value| found[digit] = value;
    for ("ABCDEF", 10..) |digit, value| found[digit] = value;
    break :table found;
};

/// Read a two's complement big-endian number; the caller reads the ones of over eight bytes.
fn decimals(field: *const Field, row: usize, octets: []const u8) Bad!void {
    if (octets.len == 0 or octets.len > 8) return error.Bad;
    var value: i64 = @as(i8, @bitCast(octets[0]));
    for (octets[1..]) |octet| value = value << 8 | octet;
    if (value < field.low or value > field.high) return error.Bad;
    field.put(i64, row, value);
}

fn closed(field: *const Field, row: usize, text: []const u8) Bad!void {
    var begin: usize = 0;
    for (field.allowed_ends[0..field.allowed_count], 0..) |end, code| {
        if (std.mem.eql(u8, text, field.allowed[begin..end])) {
            field.put(u32, row, @intCast(code));
            return if (text.len > field.most) error.Bad else {};
        }
        begin = end;
    }
    return error.Bad;
}

fn fixed(field: *const Field, row: usize, text: []const u8) Bad!void {
    if (text.len != field.width or text.len > field.most) return error.Bad;
    var allowed: u8 = 1;
    for (text) |octet| allowed &= field.allowed[octet];
    if (allowed != 1) return error.Bad;
    @memcpy(field.values[row * text.len .. (row + 1) * text.len], text);
}

/// Give the text the number of its distinct value; a new one is copied.
fn open(field: *Field, row: usize, text: []const u8, seed: u64) Bad!void {
    if (text.len > field.most) return error.Bad;
    const table = field.table[0..field.table_size];
    const known = field.texts[0..field.texts_size];
    var slot = hash(seed, text) & (table.len - 1);
    var tried: usize = 0;
    while (table[slot] != 0) : (slot = (slot + 1) & (table.len - 1)) {
        const code = table[slot] - 1;
        const start: usize = @intCast(field.starts[0..field.most_distinct][code]);
        const length: usize = @intCast(field.lengths[0..field.most_distinct][code]);
        if (std.mem.eql(u8, known[start .. start + length], text)) return field.put(u32, row, code);
        tried += 1;
        if (tried == table.len) return error.Bad;
    }
    if (!isText(text) or field.distinct == field.most_distinct or text.len > known.len - field.texts_used) return error.Bad;
    const code: u32 = @intCast(field.distinct);
    @memcpy(known[field.texts_used..][0..text.len], text);
    table[slot] = code + 1;
    field.starts[0..field.most_distinct][code] = @intCast(field.texts_used);
    field.lengths[0..field.most_distinct][code] = @intCast(text.len);
    field.texts_used += text.len;
    field.distinct += 1;
    field.put(u32, row, code);
}

/// Hash a text; without the seed, nobody can make many texts of one hash.
fn hash(seed: u64, text: []const u8) u64 {
    var state: u64 = seed ^ text.len;
    var rest = text;
    while (rest.len >= 8) : (rest = rest[8..]) state = mix(state ^ std.mem.readInt(u64, rest[0..8], .little), seed);
    var last: u64 = 0;
    for (rest) |octet| last = last << 8 | octet;
    return mix(state ^ last, seed ^ 0x9E3779B97F4A7C15);
}

fn mix(left: u64, right: u64) u64 {
    const product = @as(u128, left) * (right | 1);
    return @as(u64, @truncate(product)) ^ @as(u64, @truncate(product >> 64));
}

/// Tell whether bytes are UTF-8 without a NUL, as Python's decoder has it: no surrogates, no longer form.
fn isText(text: []const u8) bool {
    var at: usize = 0;
    while (at < text.len) {
        const first = text[at];
        if (first == 0) return false;
        if (first < 0x80) {
            at += 1;
            continue;
        }
        const length: usize = switch (first) {
            0xC2...0xDF => 2,
            0xE0...0xEF => 3,
            0xF0...0xF4 => 4,
            else => return false,
        };
        if (text.len - at < length) return false;
        const low: u8 = switch (first) {
            0xE0 => 0xA0,
            0xF0 => 0x90,
            else => 0x80,
        };
        const high: u8 = switch (first) {
            0xED => 0x9F,
            0xF4 => 0x8F,
            else => 0xBF,
        };
        if (text[at + 1] < low or text[at + 1] > high) return false;
        for (text[at + 2 .. at + length]) |next| if (next & 0xC0 != 0x80) return false;
        at += length;
    }
    return true;
}

/// Mark the rows whose text isn't their UUID as text, nor its 16 bytes.
export fn chimera_other_uuids(
    data: [*]const u8,
    size: u64,
    starts: [*]const i64,
    lengths: [*]const i64,
    rows: u64,
    wanted: [*]const [16]u8,
    marks: [*]u8,
) void {
    for (0..rows) |row| {
        marks[row] = 1;
        if (starts[row] < 0 or lengths[row] < 0) continue;
        var all = Reader{ .data = data[0..size], .at = @min(size, @as(u64, @intCast(starts[row]))) };
        const text = all.bytes(@intCast(lengths[row])) catch continue;
        const found = if (text.len == 16) text[0..16].* else uuid(text) catch continue;
        marks[row] = @intFromBool(!std.mem.eql(u8, &found, &wanted[row]));
    }
}

// Compressed batches.

const lz4_magic = 0x184D2204;
const lz4_least_match = 4;

/// Tell how many bytes an LZ4 frame stands for at most, without making them; -1 if it isn't one whole frame. It is the
/// exact number if all blocks but the last are full, as those of Kafka's clients are.
export fn chimera_lz4_size(data: [*]const u8, size: u64) i64 {
    var frame = Reader{ .data = data[0..size], .at = 0 };
    return @intCast(frameSize(&frame) catch return -1);
}

fn frameSize(frame: *Reader) Bad!usize {
    if (try fixedNumber(u32, frame) != lz4_magic) return error.Bad;
    const flags, const descriptor = .{ try frame.byte(), try frame.byte() };
    const full: usize = switch (descriptor >> 4) {
        4 => 1 << 16,
        5 => 1 << 18,
        6 => 1 << 20,
        7 => 1 << 22,
        else => return error.Bad,
    };
    if (flags >> 6 != 1) return error.Bad;
    _ = try frame.bytes(8 * @as(usize, flags >> 3 & 1) + 4 * @as(usize, flags & 1) + 1);
    var blocks: usize = 0;
    var last: []const u8 = "";
    var stored = false; // as it is
    while (true) : (blocks += 1) {
        const head = try fixedNumber(u32, frame);
        if (head == 0) break;
        stored = head >> 31 == 1;
        last = try frame.bytes(head & 0x7FFFFFFF);
        if (flags >> 4 & 1 == 1) _ = try frame.bytes(4);
    }
    if (flags >> 2 & 1 == 1) _ = try frame.bytes(4);
    if (frame.left() != 0) return error.Bad;
    if (blocks == 0) return 0;
    return (blocks - 1) * full + if (stored) last.len else try blockSize(last);
}

fn blockSize(data: []const u8) Bad!usize {
    var block = Reader{ .data = data, .at = 0 };
    var total: usize = 0;
    while (true) {
        const token = try block.byte();
        const literals = try longer(&block, token >> 4);
        _ = try block.bytes(literals);
        total += literals;
        if (block.left() == 0) return total;
        _ = try block.bytes(2);
        total += lz4_least_match + try longer(&block, token & 0xF);
    }
}

/// Add the bytes that follow a length of 15: all up to one that isn't 255.
fn longer(block: *Reader, length: u8) Bad!usize {
    var total: usize = length;
    if (length < 15) return total;
    while (true) {
        const more = try block.byte();
        total += more;
        if (more < 255) return total;
    }
}

fn fixedNumber(comptime T: type, from: *Reader) Bad!T {
    return std.mem.readInt(T, (try from.bytes(@sizeOf(T)))[0..@sizeOf(T)], .little);
}

// Blocks of columns.

/// Write the text of each row behind its length, which has seven bits a byte, the lowest first; return the bytes written.
/// The texts lie one after the other too.
export fn chimera_write(
    data: [*]const u8,
    size: u64,
    ends: [*]const u64,
    count: u64,
    codes: [*]const u32,
    rows: u64,
    out: [*]u8,
    room: u64,
) u64 {
    const to = out[0..room];
    var at: usize = 0;
    for (codes[0..rows]) |code| {
        const stop = ends[0..count][code];
        const text = data[0..size][if (code == 0) 0 else ends[code - 1]..stop];
        var left = text.len;
        while (left > 0x7F) : (left >>= 7) {
            to[at] = @as(u8, @truncate(left)) | 0x80;
            at += 1;
        }
        to[at] = @truncate(left);
        at += 1;
        @memcpy(to[at..][0..text.len], text);
        at += text.len;
    }
    return at;
}

// Metadata: JSON objects whose members are kept or hashed.

const Sha256 = std.crypto.hash.sha2.Sha256;

const most_filtered = 1 << 14; // bytes of a filtered text
const most_members = 256; // of the objects around a place in it

/// The treatment of a field, as `columns/core_metadata.py` has it.
const Rules = extern struct {
    key: *const [Sha256.block_length]u8,
    /// Each declared key and a list of its kept strings. A length of four bytes is before each text and each list.
    declared: [*]const u8,
    declared_size: u64,
    most_bytes: u64,
    most_brackets: u64,
    /// Numbers from here on are hashed, and those of more decimals.
    below: u64,
    decimals: u64,
    seed: u64,
};

/// Filter texts from the number `first` on; return that of the next one, for which there may be no room. Texts lie one
/// after the other, as the results do. The ones that the caller must filter are marked.
export fn chimera_metadata(
    data: [*]const u8,
    size: u64,
    ends: [*]const u64,
    count: u64,
    first: u64,
    rules: *const Rules,
    out: [*]u8,
    room: u64,
    out_ends: [*]u64,
    marks: [*]u8,
) u64 {
    var filter = Filter{ .rules = rules, .inner = keyed(rules.key, 0x36), .outer = keyed(rules.key, 0x5C) };
    var begin: usize = if (first == 0) 0 else ends[0..count][first - 1];
    var at: usize = 0;
    for (first..count) |number| {
        if (room - at < most_filtered) return number;
        const text = data[0..size][begin..ends[number]];
        const made = filter.filtered(text, out[at..][0..most_filtered]) catch null;
        marks[number] = @intFromBool(made == null);
        at += made orelse 0;
        out_ends[number] = at;
        begin = ends[number];
    }
    return count;
}

/// Begin a hash with the key, as RFC 2104 has it.
fn keyed(key: *const [Sha256.block_length]u8, padding: u8) Sha256 {
    var block = key.*;
    for (&block) |*octet| octet.* ^= padding;
    var state = Sha256.init(.{});
    state.update(&block);
    return state;
}

/// Place of a member in the output: from the quote before its name over the one behind it to the end of its value.
const Member = struct { start: usize, named: usize, stop: usize };

/// A name of a member, its kept strings if it is declared, else its hash.
const Name = struct { text: ?[]const u8 = null, allowed: ?[]const u8 = null, hash: [64]u8 = undefined };

const Filter = struct {
    rules: *const Rules,
    inner: Sha256,
    outer: Sha256,
    text: Reader = undefined,
    brackets: usize = 0,
    out: []u8 = undefined,
    used: usize = 0,
    members: [most_members]Member = undefined,
    counted: usize = 0,
    unsorted: [most_filtered]u8 = undefined,
    names: [256]Name = @splat(.{}),

    fn digest(self: *const Filter, text: []const u8) [64]u8 {
        var made: [Sha256.digest_length]u8 = undefined;
        var state = self.inner;
        state.update(text);
        state.final(&made);
        state = self.outer;
        state.update(&made);
        state.final(&made);
        return std.fmt.bytesToHex(made, .lower);
    }

    /// Filter an object; return the number of its bytes.
    fn filtered(self: *Filter, text: []const u8, out: []u8) Bad!usize {
        if (text.len > self.rules.most_bytes) return error.Bad;
        self.text = .{ .data = text, .at = 0 };
        self.out, self.used, self.counted, self.brackets = .{ out, 0, 0, 0 };
        if (try self.token() != '{') return error.Bad;
        try self.inside('}', null);
        _ = self.token() catch return self.used; // nothing but blanks behind it
        return error.Bad;
    }

    fn put(self: *Filter, text: []const u8) Bad!void {
        if (text.len > self.out.len - self.used) return error.Bad;
        @memcpy(self.out[self.used..][0..text.len], text);
        self.used += text.len;
    }

    /// Read the byte after blanks.
    fn token(self: *Filter) Bad!u8 {
        while (true) switch (try self.text.byte()) {
            ' ', '\t', '\n', '\r' => {},
            else => |octet| return octet,
        };
    }

    fn value(self: *Filter, allowed: ?[]const u8) Bad!void {
        switch (try self.token()) {
            '{' => try self.inside('}', null),
            '[' => try self.inside(']', allowed),
            '"' => try self.string(allowed),
            't' => try self.word("true"),
            'f' => try self.word("false"),
            'n' => try self.word("null"),
            '-', '0'...'9' => try self.number(allowed),
            else => return error.Bad,
        }
    }

    fn word(self: *Filter, wanted: []const u8) Bad!void {
        if (!std.mem.eql(u8, try self.text.bytes(wanted.len - 1), wanted[1..])) return error.Bad;
        try self.put(wanted);
    }

    /// Filter the members of an object or the items of an array, up to its closing bracket.
    fn inside(self: *Filter, comptime close: u8, allowed: ?[]const u8) Bad!void {
        const first = self.counted;
        self.brackets += 1;
        if (self.brackets > self.rules.most_brackets) return error.Bad;
        try self.put(if (close == '}') "{" else "[");
        if (try self.token() == close) return self.put(&.{close});
        self.text.at -= 1;
        while (true) {
            try if (close == '}') self.member() else self.value(allowed);
            switch (try self.token()) {
                ',' => if (close == ']') try self.put(","),
                close => break,
                else => return error.Bad,
            }
        }
        try self.sort(self.members[first..self.counted]);
        self.counted = first;
        try self.put(&.{close});
    }

    fn member(self: *Filter) Bad!void {
        if (try self.token() != '"') return error.Bad;
        const start, const name = .{ self.used, try self.named(try self.quoted()) };
        const allowed = name.allowed; // another name may take the place of this one
        try self.put(if (allowed == null) "\"sha256:" else "\"");
        try self.put(if (allowed == null) &name.hash else name.text.?);
        const end = self.used;
        try self.put("\":");
        if (try self.token() != ':') return error.Bad;
        try self.value(allowed);
        if (self.counted == most_members) return error.Bad;
        self.members[self.counted] = .{ .start = start, .named = end, .stop = self.used };
        self.counted += 1;
    }

    /// Sort the members at the end of the output by their names, and put commas between them.
    fn sort(self: *Filter, members: []Member) Bad!void {
        if (members.len < 2) return;
        const start = members[0].start;
        @memcpy(self.unsorted[start..self.used], self.out[start..self.used]);
        self.used = start;
        std.mem.sortUnstable(Member, members, @as([]const u8, &self.unsorted), before);
        for (members, 0..) |each, place| {
            if (place != 0) try self.put(",");
            if (place != 0 and !before(&self.unsorted, members[place - 1], each)) return error.Bad; // two of one name
            try self.put(self.unsorted[each.start..each.stop]);
        }
    }

    fn before(all: []const u8, left: Member, right: Member) bool {
        return std.mem.lessThan(u8, all[left.start + 1 .. left.named], all[right.start + 1 .. right.named]);
    }

    fn named(self: *Filter, text: []const u8) Bad!*const Name {
        const name = &self.names[hash(self.rules.seed, text) % self.names.len];
        if (name.text == null or !std.mem.eql(u8, name.text.?, text)) {
            name.* = .{ .text = text, .allowed = try self.declared(text) };
            if (name.allowed == null) name.hash = self.digest(text);
        }
        return name;
    }

    /// Return the kept strings of a key; null if it isn't declared.
    fn declared(self: *const Filter, key: []const u8) Bad!?[]const u8 {
        var all = Reader{ .data = self.rules.declared[0..self.rules.declared_size], .at = 0 };
        while (all.left() != 0) {
            const found = std.mem.eql(u8, try listed(&all), key);
            const allowed = try listed(&all);
            if (found) return allowed;
        }
        return null;
    }

    fn listed(from: *Reader) Bad![]const u8 {
        return from.bytes(try fixedNumber(u32, from));
    }

    /// Read the text up to the next quote, if its bytes are the same in the output.
    fn quoted(self: *Filter) Bad![]const u8 {
        const begin = self.text.at;
        var all: u8 = 0;
        while (true) switch (try self.text.byte()) {
            '"' => break,
            0...0x1F, '\\' => return error.Bad,
            else => |octet| all |= octet,
        };
        const text = self.text.data[begin .. self.text.at - 1];
        return if (all >= 0x80 and !isText(text)) error.Bad else text;
    }

    fn string(self: *Filter, allowed: ?[]const u8) Bad!void {
        const text = try self.quoted();
        var kept = Reader{ .data = allowed orelse "", .at = 0 };
        while (kept.left() != 0) if (std.mem.eql(u8, try listed(&kept), text)) {
            return self.put(self.text.data[self.text.at - text.len - 2 .. self.text.at]); // with its quotes
        };
        try self.mask(text);
    }

    /// Read a number of the usual form: orjson prints it as it was written, so its hash is that of these digits.
    fn number(self: *Filter, allowed: ?[]const u8) Bad!void {
        const begin = self.text.at - 1;
        if (self.text.data[begin] != '-') self.text.at = begin;
        const whole = self.run();
        var fraction: []const u8 = "";
        if (self.text.left() != 0 and self.text.data[self.text.at] == '.') {
            self.text.at += 1;
            fraction = self.run();
            if (fraction.len == 0 or whole.len + fraction.len > 15) return error.Bad; // 15 digits stay as they are
            if (fraction.len > 1 and fraction[fraction.len - 1] == '0') return error.Bad;
        }
        const text = self.text.data[begin..self.text.at];
        if (whole.len == 0 or whole.len > 18 or std.mem.eql(u8, text, "-0")) return error.Bad;
        // 00, and 0.0001, of which orjson makes 1e-4 from some length on
        if (whole[0] == '0' and (whole.len > 1 or std.mem.startsWith(u8, fraction, "000"))) return error.Bad;
        const size = std.fmt.parseInt(u64, whole, 10) catch return error.Bad;
        const kept = allowed != null and size < self.rules.below and fraction.len <= self.rules.decimals;
        try if (kept) self.put(text) else self.mask(text);
    }

    fn run(self: *Filter) []const u8 {
        const begin = self.text.at;
        while (self.text.left() != 0 and std.ascii.isDigit(self.text.data[self.text.at])) self.text.at += 1;
        return self.text.data[begin..self.text.at];
    }

    /// Write the hash of a text, and its length in characters.
    fn mask(self: *Filter, text: []const u8) Bad!void {
        const length = std.unicode.utf8CountCodepoints(text) catch return error.Bad;
        const form, const parts = .{ "{{\"len\":{d},\"sha256\":\"{s}\"}}", .{ length, self.digest(text) } };
        self.used += (std.fmt.bufPrint(self.out[self.used..], form, parts) catch return error.Bad).len;
    }
};

/// Checksum of the source that this library was built from.
export fn chimera_source() u32 {
    return std.hash.Crc32.hash(@embedFile("core.zig"));
}

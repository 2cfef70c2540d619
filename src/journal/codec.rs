//! Facts as bytes. The only file that names bincode.
//!
//! The facts of one batch are one run of bytes, facts one after the other. The store cuts the run into parts that fit
//! its pages and joins them again, so no fact is too large: a message of thousands of chunks, a settlement of
//! thousands of ranges and names of any length need no rule of their own.
//!
//! ```text
//! fact     kind (u8), length of the payload (varint), payload
//! varint   bincode's variable integer encoding, little endian; signed numbers zigzag
//! name     virtual host (varint, 0), UTF-8 to the end. The n-th name fact gives the name n, counted from 0
//! enqueued name, first message, first sequence - first message (signed), accepted-at,
//!          deliveries, failures, place,
//!          item count, per item (header length, length),
//!          field count, per field (tag u8, length, bytes)
//! place    0, slot, chunk - first message (signed), byte in the chunk
//!          1, count, per chunk (slot - the slot before (signed), chunk - the chunk before (signed));
//!             before the first: slot 0, chunk = first message
//! settled  name, ranges
//! counted  name, deliveries + 1 or 0 for none, failures, ranges
//! delayed  name, due-at, ranges
//! watched  name, epoch
//! paused   name, 1 or 0
//! seen     name, count, per id (at - the one before (signed), length, bytes); before the first: 0. None: all are forgotten
//! declared name, property count, per property (tag u8, length, bytes); no properties: an ordinary queue again
//!          property 1: the topic, or pattern of topics, that the queue is bound to, UTF-8
//!          property 16 + n: the value of setting n (`base::SETTINGS`): a number (varint), 0 or 1, or UTF-8
//! policy   pattern length, pattern (UTF-8), 1 or 0 for one that states nothing any more, properties as above, from 16 on
//! ranges   count, per range (start - the end before, end - start); before the first: 0
//! ```
//!
//! # Invariants
//! - Every kind is listed in [`kind`] for ever. A kind with bit 7 set is optional: a reader that does not know it skips
//!   it, and compaction, which writes only what it has read, loses it. What must outlive compaction is an optional
//!   field of `enqueued`, kept unread. Any other unknown kind, and any unknown property, refuses the store by its number.
//! - The decoder trusts nothing: a length is compared with what is there before it is used, and no more memory is
//!   taken than a small multiple of the bytes given.

use std::collections::BTreeMap;
use std::sync::Arc;

use bincode::config::{Configuration, standard};
use bytes::Bytes;

use super::{Enqueued, Fact, IdList, Item, Place, QueueName};
use crate::base::{
    ChunkNo, ChunkRef, Epoch, MessageId, Policies, Setting, SettingForm, SettingKey, Settings, SlotNo,
};

const CONFIG: Configuration = standard();

/// Fact kinds. Numbers are never used again.
mod kind {
    pub(super) const DECLARED: u8 = 1;
    pub(super) const ENQUEUED: u8 = 2;
    pub(super) const SETTLED: u8 = 3;
    pub(super) const COUNTED: u8 = 4;
    pub(super) const WATCHED: u8 = 5;
    /// Reserved: an entry goes on in another queue, its body stays.
    #[expect(dead_code, reason = "reserved")]
    const MOVED: u8 = 6;
    /// Reserved: a queue is gone with all it holds.
    #[expect(dead_code, reason = "reserved")]
    const DELETED: u8 = 7;
    /// A queue has seen deduplication ids.
    pub(super) const SEEN: u8 = 8;
    /// Reserved: a new owner's term.
    #[expect(dead_code, reason = "reserved")]
    const EPOCH: u8 = 9;
    /// Gives the next number to a queue name.
    pub(super) const NAME: u8 = 10;
    pub(super) const PAUSED: u8 = 11;
    pub(super) const DELAYED: u8 = 12;
    pub(super) const POLICY: u8 = 13;
    /// The bit of kinds that may be skipped by a reader that does not know them.
    pub(super) const OPTIONAL: u8 = 0x80;
}

/// The property of a queue that names its topic.
const PROPERTY_TOPIC: u8 = 1;
/// The property of a queue that says which messages of its topic it keeps.
const PROPERTY_SELECTOR: u8 = 2;

/// The property of the setting with the number 0, if there was one.
const PROPERTY_SETTING: u8 = 16;

const PLACE_CHUNK: u64 = 0;
const PLACE_EXTENT: u64 = 1;

/// Why stored bytes are not facts.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// A fact kind, or one with a property, that this build does not know and may not ignore.
    #[error("fact kind {tag}, as it is here, is not known to this version")]
    UnknownKind {
        /// The kind's number.
        tag: u8,
    },
    /// Bytes that do not parse.
    #[error("fact {index} does not parse")]
    Malformed {
        /// Which fact of the batch, names counted too.
        index: usize,
    },
}

/// Encodes the facts of a batch. No facts are no bytes.
///
/// Panics on a fact that breaks the rules of its type: that is a bug of the core, and it must not reach the disk.
pub fn encode_facts(facts: &[Fact]) -> Vec<u8> {
    let mut encoder = Encoder::default();
    for fact in facts {
        encoder.fact(fact);
    }
    encoder.out
}

/// Decodes the facts of a batch.
pub fn decode_facts(bytes: &[u8]) -> Result<Vec<Fact>, DecodeError> {
    let mut reader = Reader { rest: bytes };
    let mut names: Vec<QueueName> = Vec::new();
    let mut facts = Vec::new();
    let mut index = 0;
    while !reader.rest.is_empty() {
        let malformed = DecodeError::Malformed { index };
        let Some((tag, payload)) = reader.fact() else {
            return Err(malformed);
        };
        let mut payload = Reader { rest: payload };
        let fact = match tag {
            kind::NAME => payload.name().map(|name| {
                names.push(name);
                None
            }),
            kind::ENQUEUED => payload.enqueued(&names).map(Some),
            kind::SETTLED => payload.settled(&names).map(Some),
            kind::COUNTED => payload.counted(&names).map(Some),
            kind::DELAYED => payload.delayed(&names).map(Some),
            kind::WATCHED => payload.watched(&names).map(Some),
            kind::PAUSED => payload.paused(&names).map(Some),
            kind::DECLARED => payload.declared(&names)?.map(Some),
            kind::POLICY => payload.policy()?.map(Some),
            kind::SEEN => payload.seen(&names).map(Some),
            tag if tag & kind::OPTIONAL != 0 => {
                payload.rest = &[];
                Some(None)
            }
            tag => return Err(DecodeError::UnknownKind { tag }),
        };
        match fact {
            Some(fact) if payload.rest.is_empty() => facts.extend(fact),
            _ => return Err(malformed),
        }
        index += 1;
    }
    Ok(facts)
}

#[derive(Default)]
struct Encoder<'a> {
    out: Vec<u8>,
    payload: Vec<u8>,
    names: BTreeMap<&'a str, u64>,
    last_name: Option<(&'a QueueName, u64)>,
}

impl<'a> Encoder<'a> {
    fn fact(&mut self, fact: &'a Fact) {
        match fact {
            Fact::Enqueued(enqueued) => {
                let name = self.name(&enqueued.queue);
                put(&mut self.payload, name);
                put_enqueued(&mut self.payload, enqueued);
                self.close(kind::ENQUEUED);
            }
            Fact::Settled { queue, ranges } => {
                let name = self.name(queue);
                put(&mut self.payload, name);
                put_ranges(&mut self.payload, ranges);
                self.close(kind::SETTLED);
            }
            Fact::Counted {
                queue,
                ranges,
                deliveries,
                failures,
            } => {
                let name = self.name(queue);
                put(&mut self.payload, name);
                put(
                    &mut self.payload,
                    deliveries.map_or(0, |count| u64::from(count) + 1),
                );
                put(&mut self.payload, u64::from(*failures));
                put_ranges(&mut self.payload, ranges);
                self.close(kind::COUNTED);
            }
            Fact::Delayed {
                queue,
                ranges,
                due_at_ms,
            } => {
                let name = self.name(queue);
                put(&mut self.payload, name);
                put(&mut self.payload, *due_at_ms);
                put_ranges(&mut self.payload, ranges);
                self.close(kind::DELAYED);
            }
            Fact::Watched { queue, epoch } => {
                let name = self.name(queue);
                put(&mut self.payload, name);
                put(&mut self.payload, u64::from(epoch.0));
                self.close(kind::WATCHED);
            }
            Fact::Declared {
                queue,
                topic,
                selector,
                settings,
            } => {
                let name = self.name(queue);
                put(&mut self.payload, name);
                let count =
                    usize::from(topic.is_some()) + usize::from(selector.is_some()) + settings.iter().count();
                put(&mut self.payload, count as u64);
                if let Some(topic) = topic {
                    self.payload.push(PROPERTY_TOPIC);
                    put(&mut self.payload, topic.len() as u64);
                    self.payload.extend_from_slice(topic.as_bytes());
                }
                if let Some(selector) = selector {
                    self.payload.push(PROPERTY_SELECTOR);
                    put(&mut self.payload, selector.len() as u64);
                    self.payload.extend_from_slice(selector.as_bytes());
                }
                put_settings(&mut self.payload, settings);
                self.close(kind::DECLARED);
            }
            Fact::Policy { pattern, settings } => {
                put(&mut self.payload, pattern.len() as u64);
                self.payload.extend_from_slice(pattern.as_bytes());
                put(&mut self.payload, u64::from(settings.is_some()));
                if let Some(settings) = settings {
                    put(&mut self.payload, settings.iter().count() as u64);
                    put_settings(&mut self.payload, settings);
                }
                self.close(kind::POLICY);
            }
            Fact::Seen { queue, ids } => {
                let name = self.name(queue);
                put(&mut self.payload, name);
                put_seen(&mut self.payload, ids);
                self.close(kind::SEEN);
            }
            Fact::Paused { queue, paused } => {
                let name = self.name(queue);
                put(&mut self.payload, name);
                put(&mut self.payload, u64::from(*paused));
                self.close(kind::PAUSED);
            }
        }
    }

    /// The number of a name, given by a fact of its own at first use. The payload must be empty.
    fn name(&mut self, name: &'a QueueName) -> u64 {
        match self.last_name {
            Some((last, number)) if Arc::ptr_eq(last, name) => return number,
            _ => {}
        }
        let next = self.names.len() as u64;
        let number = *self.names.entry(name).or_insert(next);
        if number == next {
            put(&mut self.payload, 0);
            self.payload.extend_from_slice(name.as_bytes());
            self.close(kind::NAME);
        }
        self.last_name = Some((name, number));
        number
    }

    fn close(&mut self, tag: u8) {
        self.out.push(tag);
        put(&mut self.out, self.payload.len() as u64);
        self.out.append(&mut self.payload);
    }
}

fn put(out: &mut Vec<u8>, number: u64) {
    bincode::encode_into_std_write(number, out, CONFIG).expect("a Vec takes every byte");
}

/// The difference of two numbers, modulo 2^64, as a signed number: small in either direction.
fn put_delta(out: &mut Vec<u8>, number: u64, base: u64) {
    let delta = number.wrapping_sub(base).cast_signed();
    bincode::encode_into_std_write(delta, out, CONFIG).expect("a Vec takes every byte");
}

fn put_enqueued(out: &mut Vec<u8>, enqueued: &Enqueued) {
    let base = enqueued.first_message.0;
    put(out, base);
    put_delta(out, enqueued.first_sequence, base);
    put(out, enqueued.accepted_at_ms);
    put(out, u64::from(enqueued.deliveries));
    put(out, u64::from(enqueued.failures));
    match &enqueued.place {
        Place::Chunk { chunk, offset } => {
            put(out, PLACE_CHUNK);
            put(out, u64::from(chunk.slot.0));
            put_delta(out, chunk.chunk.0, base);
            put(out, u64::from(*offset));
        }
        Place::Extent(chunks) => {
            assert!(!chunks.is_empty(), "an extent has at least one chunk");
            put(out, PLACE_EXTENT);
            put(out, chunks.len() as u64);
            let mut before = (0, base);
            for chunk in chunks.iter() {
                put_delta(out, u64::from(chunk.slot.0), before.0);
                put_delta(out, chunk.chunk.0, before.1);
                before = (u64::from(chunk.slot.0), chunk.chunk.0);
            }
        }
    }
    assert!(
        items_are_valid(enqueued),
        "one to ITEM_COUNT_MAX items, one for an extent"
    );
    put(out, enqueued.items.len() as u64);
    for item in &enqueued.items {
        put(out, u64::from(item.header_len));
        put(out, u64::from(item.len));
    }
    assert!(fields_ascend(&enqueued.fields), "fields ascend by tag");
    put(out, enqueued.fields.len() as u64);
    for (tag, bytes) in &enqueued.fields {
        out.push(*tag);
        put(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

fn put_settings(out: &mut Vec<u8>, settings: &Settings) {
    let mut bytes = Vec::new();
    for (key, value) in settings.iter() {
        bytes.clear();
        match value {
            Setting::Number(number) => put(&mut bytes, *number),
            Setting::Flag(flag) => put(&mut bytes, u64::from(*flag)),
            Setting::Text(text) => bytes.extend_from_slice(text.as_bytes()),
        }
        out.push(PROPERTY_SETTING + key.tag);
        put(out, bytes.len() as u64);
        out.extend_from_slice(&bytes);
    }
}

fn put_ranges(out: &mut Vec<u8>, ranges: &[(u64, u64)]) {
    put(out, ranges.len() as u64);
    let mut before = None;
    for (first, last) in ranges {
        assert!(
            range_follows(before, *first, *last),
            "ranges ascend and do not touch"
        );
        put(out, first - before.unwrap_or(0));
        put(out, last - first);
        before = Some(*last);
    }
}

fn put_seen(out: &mut Vec<u8>, ids: &IdList) {
    put(out, ids.len() as u64);
    let mut before = 0;
    for (at_ms, id) in ids.iter() {
        put_delta(out, at_ms, before);
        put(out, id.len() as u64);
        out.extend_from_slice(id);
        before = at_ms;
    }
}

fn items_are_valid(enqueued: &Enqueued) -> bool {
    let count = enqueued.items.len();
    let count_max = match enqueued.place {
        Place::Chunk { .. } => Enqueued::ITEM_COUNT_MAX,
        Place::Extent(_) => 1,
    };
    let last = (count as u64).wrapping_sub(1);
    (1..=count_max).contains(&count)
        && enqueued.items.iter().all(|item| item.header_len <= item.len)
        && enqueued.first_sequence.checked_add(last).is_some()
        && enqueued.first_message.0.checked_add(last).is_some()
}

fn fields_ascend(fields: &[(u8, Bytes)]) -> bool {
    fields.is_sorted_by(|(a, _), (b, _)| a < b)
}

fn range_follows(before: Option<u64>, first: u64, last: u64) -> bool {
    first <= last && before.is_none_or(|before| before.checked_add(1).is_some_and(|next| next < first))
}

/// Reads from the front; `None` means that the bytes do not parse.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn fact(&mut self) -> Option<(u8, &'a [u8])> {
        let tag = self.byte()?;
        let len = self.count(1)?;
        Some((tag, self.take(len)?))
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn decode<T: bincode::Decode<()>>(&mut self) -> Option<T> {
        let (number, len) = bincode::decode_from_slice(self.rest, CONFIG).ok()?;
        self.take(len)?;
        Some(number)
    }

    fn u64(&mut self) -> Option<u64> {
        self.decode()
    }

    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.u64()?).ok()
    }

    fn delta(&mut self, base: u64) -> Option<u64> {
        let delta: i64 = self.decode()?;
        Some(base.wrapping_add(delta.cast_unsigned()))
    }

    /// A number of things of which each takes at least `bytes_min` of the bytes still there.
    fn count(&mut self, bytes_min: usize) -> Option<usize> {
        let count = usize::try_from(self.u64()?).ok()?;
        (count <= self.rest.len() / bytes_min).then_some(count)
    }

    /// A name fact. Virtual hosts other than 0 do not exist in this format.
    fn name(&mut self) -> Option<QueueName> {
        if self.u64()? != 0 {
            return None;
        }
        let name = std::str::from_utf8(self.rest).ok()?;
        self.rest = &[];
        Some(name.into())
    }

    fn queue(&mut self, names: &[QueueName]) -> Option<QueueName> {
        let number = usize::try_from(self.u64()?).ok()?;
        names.get(number).cloned()
    }

    fn enqueued(&mut self, names: &[QueueName]) -> Option<Fact> {
        let queue = self.queue(names)?;
        let base = self.u64()?;
        let first_sequence = self.delta(base)?;
        let accepted_at_ms = self.u64()?;
        let deliveries = self.u32()?;
        let failures = self.u32()?;
        let place = self.place(base)?;
        let item_count = self.count(2)?;
        let mut items = Vec::with_capacity(item_count);
        for _ in 0..item_count {
            items.push(Item {
                header_len: self.u32()?,
                len: self.u32()?,
            });
        }
        let field_count = self.count(2)?;
        let mut fields = Vec::with_capacity(field_count);
        for _ in 0..field_count {
            let tag = self.byte()?;
            let len = self.count(1)?;
            fields.push((tag, Bytes::copy_from_slice(self.take(len)?)));
        }
        let enqueued = Enqueued {
            queue,
            first_sequence,
            first_message: MessageId(base),
            accepted_at_ms,
            place,
            items,
            deliveries,
            failures,
            fields,
        };
        (items_are_valid(&enqueued) && fields_ascend(&enqueued.fields)).then_some(Fact::Enqueued(enqueued))
    }

    fn place(&mut self, base: u64) -> Option<Place> {
        match self.u64()? {
            PLACE_CHUNK => {
                let slot = SlotNo(self.u32()?);
                let chunk = ChunkNo(self.delta(base)?);
                Some(Place::Chunk {
                    chunk: ChunkRef { slot, chunk },
                    offset: self.u32()?,
                })
            }
            PLACE_EXTENT => {
                let count = self.count(2)?;
                let mut chunks = Vec::with_capacity(count);
                let mut before = (0, base);
                for _ in 0..count {
                    before = (self.delta(before.0)?, self.delta(before.1)?);
                    chunks.push(ChunkRef {
                        slot: SlotNo(u32::try_from(before.0).ok()?),
                        chunk: ChunkNo(before.1),
                    });
                }
                (count > 0).then(|| Place::Extent(chunks.into()))
            }
            _ => None,
        }
    }

    fn ranges(&mut self) -> Option<Vec<(u64, u64)>> {
        let count = self.count(2)?;
        let mut ranges = Vec::with_capacity(count);
        let mut before = None;
        for _ in 0..count {
            let first = before.unwrap_or(0_u64).checked_add(self.u64()?)?;
            let last = first.checked_add(self.u64()?)?;
            if !range_follows(before, first, last) {
                return None;
            }
            ranges.push((first, last));
            before = Some(last);
        }
        Some(ranges)
    }

    fn settled(&mut self, names: &[QueueName]) -> Option<Fact> {
        Some(Fact::Settled {
            queue: self.queue(names)?,
            ranges: self.ranges()?,
        })
    }

    fn counted(&mut self, names: &[QueueName]) -> Option<Fact> {
        let queue = self.queue(names)?;
        let deliveries = match self.u64()? {
            0 => None,
            count => Some(u32::try_from(count - 1).ok()?),
        };
        Some(Fact::Counted {
            queue,
            deliveries,
            failures: self.u32()?,
            ranges: self.ranges()?,
        })
    }

    fn delayed(&mut self, names: &[QueueName]) -> Option<Fact> {
        Some(Fact::Delayed {
            queue: self.queue(names)?,
            due_at_ms: self.u64()?,
            ranges: self.ranges()?,
        })
    }

    fn watched(&mut self, names: &[QueueName]) -> Option<Fact> {
        Some(Fact::Watched {
            queue: self.queue(names)?,
            epoch: Epoch(self.u32()?),
        })
    }

    /// `Ok(None)` for bytes that do not parse.
    fn declared(&mut self, names: &[QueueName]) -> Result<Option<Fact>, DecodeError> {
        let (Some(queue), Some(count)) = (self.queue(names), self.count(2)) else {
            return Ok(None);
        };
        let (mut topic, mut selector) = (None, None);
        let mut settings = Settings::default();
        for _ in 0..count {
            let Some((tag, bytes)) = self.property() else {
                return Ok(None);
            };
            let named = match tag {
                PROPERTY_TOPIC => Some(&mut topic),
                PROPERTY_SELECTOR => Some(&mut selector),
                _ => None,
            };
            if let Some(named) = named {
                let text = std::str::from_utf8(bytes).ok();
                let Some(text) = text.filter(|text| !text.is_empty() && named.is_none()) else {
                    return Ok(None);
                };
                *named = Some(Arc::from(text));
            } else if !setting(&mut settings, tag, bytes, kind::DECLARED)? {
                return Ok(None);
            }
        }
        Ok(Some(Fact::Declared {
            queue,
            topic,
            selector,
            settings,
        }))
    }

    /// `Ok(None)` for bytes that do not parse.
    fn policy(&mut self) -> Result<Option<Fact>, DecodeError> {
        let pattern = self.count(1).and_then(|len| self.take(len));
        let pattern = pattern.and_then(|bytes| std::str::from_utf8(bytes).ok());
        let (Some(pattern), Some(stated)) = (pattern, self.u64()) else {
            return Ok(None);
        };
        let mut settings = (stated == 1).then(Settings::default);
        if let Some(settings) = &mut settings {
            let Some(count) = self.count(2) else {
                return Ok(None);
            };
            for _ in 0..count {
                let Some((tag, bytes)) = self.property() else {
                    return Ok(None);
                };
                if !setting(settings, tag, bytes, kind::POLICY)? {
                    return Ok(None);
                }
            }
        }
        let fact = Fact::Policy {
            pattern: pattern.into(),
            settings,
        };
        Ok((stated <= 1 && Policies::is_pattern(pattern)).then_some(fact))
    }

    fn property(&mut self) -> Option<(u8, &'a [u8])> {
        let tag = self.byte()?;
        let len = self.count(1)?;
        Some((tag, self.take(len)?))
    }

    fn seen(&mut self, names: &[QueueName]) -> Option<Fact> {
        let queue = self.queue(names)?;
        let count = self.count(3)?;
        let mut ids = IdList::default();
        let mut before = 0;
        for _ in 0..count {
            before = self.delta(before)?;
            let len = self.count(1)?;
            let id = self.take(len).filter(|id| IdList::is_id(id))?;
            ids.push(before, id);
        }
        Some(Fact::Seen { queue, ids })
    }

    fn paused(&mut self, names: &[QueueName]) -> Option<Fact> {
        let queue = self.queue(names)?;
        let paused = match self.u64()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Fact::Paused { queue, paused })
    }
}

/// Adds what a property says. False for bytes that do not parse, an error for a property that this build does not know.
fn setting(settings: &mut Settings, tag: u8, bytes: &[u8], of: u8) -> Result<bool, DecodeError> {
    let key = tag.checked_sub(PROPERTY_SETTING).and_then(SettingKey::tagged);
    let key = key.ok_or(DecodeError::UnknownKind { tag: of })?;
    let number = || {
        let mut reader = Reader { rest: bytes };
        reader.u64().filter(|_| reader.rest.is_empty())
    };
    let value = match key.form {
        SettingForm::Number(..) => number().map(Setting::Number),
        SettingForm::Flag => number()
            .filter(|flag| *flag <= 1)
            .map(|flag| Setting::Flag(flag == 1)),
        SettingForm::QueueName | SettingForm::Choice(_) => {
            let text = std::str::from_utf8(bytes).ok();
            text.map(|text| Setting::Text(text.into()))
        }
    };
    Ok(value.is_some_and(|value| settings.state(key, value)))
}

#[cfg(test)]
mod tests;

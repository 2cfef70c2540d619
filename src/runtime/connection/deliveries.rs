//! Deliveries of one session on their way from the core to its output: each waits for its body's bytes, and they keep
//! their order.
//!
//! A short message is appended whole. A long one is appended piece by piece as the socket takes it, so that a
//! connection never holds more of it than [`super::output::OUTPUT_BYTES_HIGH`] and one run of chunks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::base::{ChunkRef, Tag};
use crate::port::{Body, Delivery, Event, Refusal};
use crate::session::Session;
use crate::store::StoreError;
use crate::wire::FRAME_END;

use super::super::bodies::{Bodies, Fetch, Fetched, RUN_CHUNK_COUNT_MAX};
use super::output::Output;

/// Events taken from the core at a time.
const EVENT_COUNT_MAX: usize = 256;

/// A message in memory that is longer goes piece by piece.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// See the module's text.
#[derive(Default)]
pub(super) struct Deliveries {
    /// From the core, in order. The first `at` are done with.
    pub(super) events: Vec<Event>,
    at: usize,
    /// The chunk looked at last: deliveries that follow each other are often in one.
    last: Option<(ChunkRef, Bytes)>,
    fetch: Option<Fetch>,
    /// What the last fetch brought, until it is used.
    fetched: VecDeque<Fetched>,
    long: Option<Long>,
}

/// The rest of a message that was begun.
struct Long {
    tag: Tag,
    source: Source,
    /// Bytes of the message still to come.
    left: usize,
}

enum Source {
    /// Chunks, and how many are done.
    Chunks(Arc<[ChunkRef]>, usize),
    /// What is left.
    Memory(Bytes),
}

/// The bytes of a message cannot be had.
#[derive(Debug)]
pub(super) struct Fault {
    /// Of which delivery.
    pub(super) tag: Tag,
    /// Where they should be.
    pub(super) place: ChunkRef,
    /// What was found.
    pub(super) error: StoreError,
    /// Part of the frame is out already: nothing can follow.
    pub(super) torn: bool,
}

/// What became of the search for a chunk.
enum Found {
    /// It is in `last`.
    Ready,
    /// It is being read.
    Coming,
    Gone,
    Failed(StoreError),
}

impl Deliveries {
    /// Whether the output ends within a frame, so that nothing but its rest may be appended.
    pub(super) fn is_mid_frame(&self) -> bool {
        self.long.is_some()
    }

    /// How many events may be taken from the core: only what can leave soon, since what is taken counts as delivered.
    pub(super) fn event_count_max(&self, output: &Output) -> usize {
        if self.events.is_empty() && !output.is_high() {
            EVENT_COUNT_MAX
        } else {
            0
        }
    }

    /// Whether the core ended the session. Deliveries that were to come before are dropped: the core has released
    /// them.
    pub(super) fn poll_evicted(&mut self) -> Option<Refusal> {
        let Some(Event::Evicted(refusal)) = self.events.last() else {
            return None;
        };
        let refusal = *refusal;
        self.clear();
        Some(refusal)
    }

    /// Is done with the next event.
    pub(super) fn skip(&mut self) {
        self.at += 1;
        if self.at == self.events.len() {
            self.clear();
        }
    }

    /// Drops all but the rest of a frame that was begun.
    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.at = 0;
    }

    /// Appends frames until the output is high, a body must be waited for, or nothing is left; with `held`, only the
    /// rest of a frame that was begun.
    pub(super) fn fill(
        &mut self,
        held: bool,
        session: &mut Session,
        output: &mut Output,
        bodies: &Arc<Bodies>,
        cx: &mut Context<'_>,
    ) -> Result<(), Fault> {
        while !output.is_high() {
            if self.poll_fetch(cx).is_pending() {
                break;
            }
            let done = if self.long.is_some() {
                self.append_long(output, bodies, cx)?
            } else if held {
                break;
            } else {
                self.append_next(session, output, bodies, cx)?
            };
            match done {
                Some(tag) => output.mark(tag),
                None if self.fetch.is_some() => {}
                None if self.long.is_some() => {}
                None => break,
            }
        }
        Ok(())
    }

    /// Appends the next event's frame, or its beginning. Gives its tag when its last byte is appended.
    fn append_next(
        &mut self,
        session: &mut Session,
        output: &mut Output,
        bodies: &Arc<Bodies>,
        cx: &mut Context<'_>,
    ) -> Result<Option<Tag>, Fault> {
        // Taken out and put back, so that looking for its body may change the rest of `self`.
        let events = std::mem::take(&mut self.events);
        let done = match events.get(self.at) {
            // An eviction was seen before: it is the last event, and ends all.
            None | Some(Event::Evicted(_)) => Ok(None),
            Some(Event::Delivery(delivery)) => self.append(delivery, &events, session, output, bodies, cx),
        };
        self.events = events;
        if matches!(done, Ok(Some(_))) || self.long.is_some() {
            self.skip();
        }
        done
    }

    fn append(
        &mut self,
        delivery: &Delivery,
        events: &[Event],
        session: &mut Session,
        output: &mut Output,
        bodies: &Arc<Bodies>,
        cx: &mut Context<'_>,
    ) -> Result<Option<Tag>, Fault> {
        let tag = delivery.tag;
        let len = delivery.len as usize;
        match &delivery.body {
            Body::Memory(bytes) if len <= PIECE_BYTES_MAX => {
                session.handle_delivery(delivery, &[bytes], &mut output.bytes);
                Ok(Some(tag))
            }
            Body::Memory(bytes) => {
                let first = (delivery.header_len as usize).max(PIECE_BYTES_MAX).min(len);
                let mut rest = bytes.clone();
                let first = rest.split_to(first);
                let source = Source::Memory(rest);
                Ok(self.begin_long(delivery, &[&first], source, session, output))
            }
            Body::Stored { chunk, offset } => match self.find(*chunk, events, bodies, cx) {
                Found::Ready => {
                    let start = *offset as usize;
                    let bytes = self
                        .last
                        .as_ref()
                        .and_then(|(_, payload)| payload.get(start..start + len));
                    let Some(bytes) = bytes else {
                        return Err(fault(tag, *chunk, short(), false));
                    };
                    session.handle_delivery(delivery, &[bytes], &mut output.bytes);
                    Ok(Some(tag))
                }
                Found::Coming => Ok(None),
                Found::Gone => gone(delivery, *chunk, session),
                Found::Failed(error) => Err(fault(tag, *chunk, error, false)),
            },
            Body::Extent(chunks) => self.append_extent(delivery, chunks, events, session, output, bodies, cx),
        }
    }

    /// Begins a message in chunks of its own, once those are at hand that hold its header block.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one connection, borrowed one by one"
    )]
    fn append_extent(
        &mut self,
        delivery: &Delivery,
        chunks: &Arc<[ChunkRef]>,
        events: &[Event],
        session: &mut Session,
        output: &mut Output,
        bodies: &Arc<Bodies>,
        cx: &mut Context<'_>,
    ) -> Result<Option<Tag>, Fault> {
        let mut pieces: Vec<Bytes> = Vec::new();
        let mut len = 0;
        for place in chunks.iter() {
            if len >= delivery.header_len as usize && !pieces.is_empty() {
                break;
            }
            // All from the first are asked for at once, so that the next look finds all of them.
            match self.find_among(*place, chunks, events, bodies, cx) {
                Found::Ready => {
                    let (_, payload) = self.last.as_ref().expect("a chunk found is the last one");
                    len += payload.len();
                    pieces.push(payload.clone());
                }
                Found::Coming => return Ok(None),
                Found::Gone => return gone(delivery, *place, session),
                Found::Failed(error) => return Err(fault(delivery.tag, *place, error, false)),
            }
        }
        let slices: Vec<&[u8]> = pieces.iter().map(AsRef::as_ref).collect();
        let source = Source::Chunks(Arc::clone(chunks), pieces.len());
        Ok(self.begin_long(delivery, &slices, source, session, output))
    }

    /// Appends the beginning of a frame; the rest follows by and by.
    fn begin_long(
        &mut self,
        delivery: &Delivery,
        pieces: &[&[u8]],
        source: Source,
        session: &mut Session,
        output: &mut Output,
    ) -> Option<Tag> {
        let begun: usize = pieces.iter().map(|piece| piece.len()).sum();
        let before = output.bytes.len();
        // To the session, as if the message ended here.
        let beginning = Delivery {
            len: u32::try_from(begun).expect("a part is shorter than the whole"),
            ..delivery.clone()
        };
        session.handle_delivery(&beginning, pieces, &mut output.bytes);
        let left = (delivery.len as usize).saturating_sub(begun);
        if left == 0 || output.bytes.len() == before {
            return Some(delivery.tag);
        }
        // It ended the frame with it; but this one goes on.
        let end = output.bytes.len() - FRAME_END.len();
        assert!(output.bytes.ends_with(FRAME_END), "a frame was ended");
        output.bytes.truncate(end);
        self.long = Some(Long {
            tag: delivery.tag,
            source,
            left,
        });
        None
    }

    /// Appends the next piece of the frame that was begun. Gives its tag with its last byte.
    fn append_long(
        &mut self,
        output: &mut Output,
        bodies: &Arc<Bodies>,
        cx: &mut Context<'_>,
    ) -> Result<Option<Tag>, Fault> {
        let Some(mut long) = self.long.take() else {
            return Ok(None);
        };
        match &mut long.source {
            Source::Memory(rest) => {
                let piece = rest.split_to(rest.len().min(PIECE_BYTES_MAX));
                output.bytes.extend_from_slice(&piece);
                long.left = rest.len();
            }
            Source::Chunks(chunks, done) => {
                let place = chunks
                    .get(*done)
                    .copied()
                    .expect("an extent's chunks hold its bytes");
                let events = std::mem::take(&mut self.events);
                let chunks = Arc::clone(chunks);
                let coming = chunks.get(*done..).unwrap_or_default();
                let found = self.find_among(place, coming, &events, bodies, cx);
                self.events = events;
                match found {
                    Found::Ready => {
                        let (_, payload) = self.last.as_ref().expect("a chunk found is the last one");
                        let piece = payload.get(..payload.len().min(long.left)).unwrap_or_default();
                        output.bytes.extend_from_slice(piece);
                        long.left -= piece.len();
                        *done += 1;
                        if piece.is_empty() || (long.left > 0 && *done == chunks.len()) {
                            return Err(fault(long.tag, place, short(), true));
                        }
                    }
                    Found::Coming => {}
                    Found::Gone => return Err(fault(long.tag, place, StoreError::Gone(place), true)),
                    Found::Failed(error) => return Err(fault(long.tag, place, error, true)),
                }
            }
        }
        if long.left == 0 {
            output.bytes.extend_from_slice(FRAME_END);
            return Ok(Some(long.tag));
        }
        self.long = Some(long);
        Ok(None)
    }

    fn find(
        &mut self,
        place: ChunkRef,
        events: &[Event],
        bodies: &Arc<Bodies>,
        cx: &mut Context<'_>,
    ) -> Found {
        self.find_among(place, &[place], events, bodies, cx)
    }

    /// Looks for a chunk; where it must be read, reads it with those of `coming` and of the events that follow.
    fn find_among(
        &mut self,
        place: ChunkRef,
        coming: &[ChunkRef],
        events: &[Event],
        bodies: &Arc<Bodies>,
        cx: &mut Context<'_>,
    ) -> Found {
        if self.last.as_ref().is_some_and(|(last, _)| *last == place) {
            return Found::Ready;
        }
        // Twice: a fetch may be answered at once.
        for _ in 0..2 {
            let fetched = self.fetched.iter().position(|(fetched, _)| *fetched == place);
            let payload = match fetched.and_then(|at| self.fetched.remove(at)) {
                Some((_, Ok(payload))) => Some(payload),
                Some((_, Err(StoreError::Gone(_)))) => return Found::Gone,
                Some((_, Err(error))) => return Found::Failed(error),
                None => bodies.cached(place),
            };
            if let Some(payload) = payload {
                self.last = Some((place, payload));
                return Found::Ready;
            }
            self.fetched.clear();
            self.fetch = Some(bodies.fetch(self.wanted(coming, events, bodies)));
            if self.poll_fetch(cx).is_pending() {
                return Found::Coming;
            }
        }
        Found::Coming
    }

    /// The chunks that will be asked for next: those of `coming`, then those of the events that follow.
    fn wanted(&self, coming: &[ChunkRef], events: &[Event], bodies: &Bodies) -> Vec<ChunkRef> {
        let mut places: Vec<ChunkRef> = coming.iter().copied().take(RUN_CHUNK_COUNT_MAX).collect();
        for event in events.iter().skip(self.at) {
            let chunks = match event {
                Event::Delivery(delivery) => match &delivery.body {
                    Body::Stored { chunk, .. } => std::slice::from_ref(chunk),
                    Body::Extent(chunks) => chunks,
                    Body::Memory(_) => &[],
                },
                Event::Evicted(_) => break,
            };
            for chunk in chunks {
                if places.len() >= RUN_CHUNK_COUNT_MAX {
                    return places;
                }
                if places.last() != Some(chunk) && !bodies.has(*chunk) {
                    places.push(*chunk);
                }
            }
        }
        places
    }

    /// Ready when no fetch is under way.
    fn poll_fetch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(fetch) = &mut self.fetch {
            match fetch.as_mut().poll(cx) {
                Poll::Ready(fetched) => {
                    self.fetched = fetched.into();
                    self.fetch = None;
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }

    /// Takes memory for events, if it has none of its own.
    pub(super) fn borrow(&mut self, spare: &mut Vec<Event>) {
        if self.events.capacity() == 0 {
            self.events = std::mem::take(spare);
        }
    }

    /// Gives memory back that is not needed until the next turn.
    pub(super) fn give_back(&mut self, spare: &mut Vec<Event>) {
        if self.events.is_empty() {
            let events = std::mem::take(&mut self.events);
            if spare.capacity() == 0 {
                *spare = events;
            }
            if self.long.is_none() && self.fetch.is_none() {
                self.last = None;
                self.fetched = VecDeque::new();
            }
        }
    }
}

/// A slot may hold another chunk once the delivery has ended, and only then: to settle it as written would lose it.
fn gone(delivery: &Delivery, place: ChunkRef, session: &Session) -> Result<Option<Tag>, Fault> {
    match session.has_subscription(delivery.sub) {
        false => Ok(Some(delivery.tag)),
        true => Err(fault(delivery.tag, place, StoreError::Gone(place), false)),
    }
}

fn fault(tag: Tag, place: ChunkRef, error: StoreError, torn: bool) -> Fault {
    Fault {
        tag,
        place,
        error,
        torn,
    }
}

fn short() -> StoreError {
    StoreError::Damaged {
        what: "a body chunk is shorter than the index says".into(),
    }
}

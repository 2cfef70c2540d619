//! The selectors of subscriptions: which entries of a queue, and which messages of a topic, each lets through.
//!
//! A queue keeps for each of its entries which selectors let it through, as a part of its lane. What is added while there are
//! selectors is asked at once, since its headers are at hand. What was there before a selector came is looked at once, in the
//! background, by whoever drives the core: [`Broker::poll_looks`] says what, [`Broker::handle_looked`] takes the headers.
//!
//! # Invariants
//! - A subscription with a selector is given nothing that its selector is not known to let through.
//! - It is given what its selector lets through in order: what comes while entries before it are looked at waits for these.
//! - Each entry that is there when a selector comes, and may be read, is looked at for it once; more often only if its bytes move.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::base::Now;
use crate::journal::field;
use crate::port::{Body, Filter, Refusal};
use crate::wire::{Escapes, unescape};

use super::Broker;
use super::lanes::SelectorNo;
use super::queue::{Queue, QueueNo, number_in};

/// An entry whose headers the core wants to see.
#[derive(Debug, Clone)]
pub struct Look {
    queue: QueueNo,
    sequence: u64,
    /// Where header block and body are.
    pub body: Body,
    /// Bytes of the header block at their beginning.
    pub header_len: u32,
}

/// Entries of one queue that are looked at in one go.
const LOOK_COUNT_MAX: usize = 128;

/// The selectors of one queue.
#[derive(Debug, Default)]
pub(super) struct Selectors {
    used: BTreeMap<SelectorNo, Used>,
    by_text: BTreeMap<String, SelectorNo>,
    last: u32,
    /// What is being looked at, and what will be behind that.
    scan: Option<Scan>,
    next: Option<Scan>,
    /// Entries that are being looked at.
    under_way: BTreeSet<u64>,
    /// Selectors that let entries through which are held, or set aside: they count when the entries come back.
    pending: BTreeMap<u64, BTreeSet<SelectorNo>>,
    /// Selectors that let entries through which came while others before them are looked at: they count behind those.
    behind: BTreeMap<u64, BTreeSet<SelectorNo>>,
}

#[derive(Debug)]
struct Used {
    filter: Arc<Filter>,
    sub_count: usize,
}

/// Entries to be looked at for some selectors: from here on, up to there.
#[derive(Debug)]
struct Scan {
    from: u64,
    end: u64,
    selectors: BTreeSet<SelectorNo>,
}

/// The headers of a message, as selectors see them.
#[derive(Debug)]
pub(super) struct Headers<'a> {
    list: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Headers<'a> {
    /// Those of a stored block, and what the fields of its entry say.
    pub(super) fn of(block: &'a [u8], fields: &[(u8, Bytes)]) -> Self {
        let lines = block.split(|byte| *byte == b'\n');
        let mut list: Vec<_> = lines.filter_map(header).collect();
        if let Some(at_ms) = number_in(fields, field::EXPIRES_AT) {
            list.push((Cow::Borrowed("expires"), Cow::Owned(at_ms.to_string())));
        }
        Self { list }
    }

    /// Whether a filter lets the message through.
    pub(super) fn pass(&self, filter: &Filter) -> bool {
        filter.selector.matches(|name| {
            let found = self.list.iter().find(|(of, _)| of == name);
            found.map(|(_, value)| &**value)
        })
    }
}

/// One line of a header block. What is no text cannot be selected.
fn header(line: &[u8]) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    let at = memchr::memchr(b':', line)?;
    let (name, value) = (line.get(..at)?, line.get(at + 1..)?);
    let text = |raw| match unescape(Escapes::Four, raw).ok()? {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    };
    Some((text(name)?, text(value)?))
}

impl Selectors {
    /// A selector of one more subscription. Whether it is new.
    fn open(&mut self, filter: &Arc<Filter>, count_max: usize) -> Result<(SelectorNo, bool), Refusal> {
        let text = filter.selector.to_string();
        if let Some(no) = self.by_text.get(&text).copied() {
            self.used.entry(no).and_modify(|used| used.sub_count += 1);
            return Ok((no, false));
        }
        if self.used.len() >= count_max {
            return Err(Refusal::TooManySelectors);
        }
        self.last += 1;
        let no = SelectorNo(self.last);
        self.by_text.insert(text, no);
        self.used.insert(
            no,
            Used {
                filter: Arc::clone(filter),
                sub_count: 1,
            },
        );
        Ok((no, true))
    }

    /// The selector of a subscription that is gone. Whether no other has it.
    fn close(&mut self, no: SelectorNo) -> bool {
        let Some(used) = self.used.get_mut(&no) else {
            return false;
        };
        used.sub_count -= 1;
        if used.sub_count > 0 {
            return false;
        }
        self.used.remove(&no);
        self.by_text.retain(|_, of| *of != no);
        for scan in [&mut self.scan, &mut self.next] {
            if let Some(of) = scan {
                of.selectors.remove(&no);
            }
            scan.take_if(|scan| scan.selectors.is_empty());
        }
        for of in [&mut self.pending, &mut self.behind] {
            of.retain(|_, selectors| {
                selectors.remove(&no);
                !selectors.is_empty()
            });
        }
        true
    }

    /// Those that let a message through, in order.
    pub(super) fn matched(&self, headers: &Headers<'_>) -> Vec<SelectorNo> {
        let all = self.used.iter().filter(|(_, used)| headers.pass(&used.filter));
        all.map(|(no, _)| *no).collect()
    }

    /// Entries are to be looked at: for one selector, or for all.
    pub(super) fn want(&mut self, from: u64, end: u64, selector: Option<SelectorNo>) {
        let selectors: BTreeSet<SelectorNo> = match selector {
            Some(no) => BTreeSet::from([no]),
            None => self.used.keys().copied().collect(),
        };
        if from >= end || selectors.is_empty() {
            return;
        }
        match &mut self.next {
            // One that was asked already is asked in vain.
            Some(next) => {
                next.from = next.from.min(from);
                next.end = next.end.max(end);
                next.selectors.extend(selectors);
            }
            None => {
                self.next = Some(Scan { from, end, selectors });
            }
        }
    }

    fn has_work(&self) -> bool {
        self.scan.is_some() || self.next.is_some()
    }

    /// Those of the selectors which let a new entry through that count at once: all but those for which entries before it are
    /// looked at.
    pub(super) fn hold_back(&mut self, sequence: u64, matched: Vec<SelectorNo>) -> Vec<SelectorNo> {
        let is_asked = |no: &SelectorNo| {
            let mut scans = [&self.scan, &self.next].into_iter().flatten();
            scans.any(|scan| scan.selectors.contains(no))
        };
        let (behind, at_once): (Vec<_>, _) = matched.into_iter().partition(is_asked);
        if !behind.is_empty() {
            self.behind.insert(sequence, behind.into_iter().collect());
        }
        at_once
    }

    /// What was held back and need not be any more.
    fn take_behind(&mut self) -> Vec<(u64, BTreeSet<SelectorNo>)> {
        let next = self.next.as_ref().map(|next| &next.selectors);
        let mut free = Vec::new();
        self.behind.retain(|sequence, selectors| {
            let (later, now) = std::mem::take(selectors)
                .into_iter()
                .partition(|no| next.is_some_and(|next| next.contains(no)));
            *selectors = later;
            free.push((*sequence, now));
            !selectors.is_empty()
        });
        free
    }

    /// An entry that is held was looked at.
    pub(super) fn keep_pending(&mut self, sequence: u64, selectors: BTreeSet<SelectorNo>) {
        self.pending.entry(sequence).or_default().extend(selectors);
    }

    /// An entry is gone.
    pub(super) fn forget(&mut self, sequence: u64) {
        self.pending.remove(&sequence);
        self.behind.remove(&sequence);
    }

    /// All entries are gone.
    pub(super) fn forget_all(&mut self) {
        self.pending.clear();
        self.behind.clear();
    }

    /// What was found of an entry while it was held.
    pub(super) fn take_pending(&mut self, sequence: u64) -> Option<BTreeSet<SelectorNo>> {
        self.pending.remove(&sequence)
    }
}

impl Queue {
    /// The selectors that let a new entry through; `None` if they cannot be asked now.
    pub(super) fn matched(&self, block: Option<&[u8]>, fields: &[(u8, Bytes)]) -> Option<Vec<SelectorNo>> {
        match (&self.selectors, block) {
            (None, _) => Some(Vec::new()),
            (Some(selectors), Some(block)) => Some(selectors.matched(&Headers::of(block, fields))),
            (Some(_), None) => None,
        }
    }

    /// Notes that selectors let an entry through: it changes its lane, now or when it comes back.
    fn let_through(&mut self, sequence: u64, selectors: BTreeSet<SelectorNo>) {
        let Some(entry) = self.entries.get(sequence) else {
            return;
        };
        if selectors.is_empty() {
            return;
        }
        if entry.leased || entry.set_aside {
            if let Some(all) = &mut self.selectors {
                all.keep_pending(sequence, selectors);
            }
        } else {
            self.change_lane(sequence, &selectors);
        }
    }
}

impl Broker {
    /// The number of a subscription's selector at its queue. If it is new there, what is there is looked at.
    pub(super) fn open_selector(&mut self, no: QueueNo, filter: &Arc<Filter>) -> Result<SelectorNo, Refusal> {
        let count_max = self.limits.selector_count_max;
        let queue = self.queue_mut(no).expect("the queue was just opened");
        let mut selectors = queue.selectors.take().unwrap_or_default();
        let opened = selectors.open(filter, count_max);
        if let Ok((selector, true)) = opened {
            let first = queue.entries.first().map(|(sequence, _)| sequence);
            selectors.want(
                first.unwrap_or(queue.next_sequence),
                queue.next_sequence,
                Some(selector),
            );
        }
        let works = selectors.has_work();
        queue.open_lanes();
        queue.selectors = Some(selectors);
        if works {
            self.scanning.insert(no);
            self.looks_wait = false;
        }
        opened.map(|(selector, _)| selector)
    }

    /// A subscription with a selector is gone.
    pub(super) fn close_selector(&mut self, no: QueueNo, selector: SelectorNo) {
        let Some(queue) = self.queue_mut(no) else { return };
        let Some(selectors) = &mut queue.selectors else {
            return;
        };
        if selectors.close(selector)
            && let Some(lanes) = &mut queue.lanes
        {
            lanes.forget(selector);
        }
        if queue
            .selectors
            .as_ref()
            .is_some_and(|selectors| selectors.used.is_empty())
        {
            queue.selectors = None;
            self.scanning.remove(&no);
        }
    }

    /// An entry was added without its headers at hand.
    pub(super) fn look_later(&mut self, no: QueueNo, sequence: u64) {
        if let Some(selectors) = self.queue_mut(no).and_then(|queue| queue.selectors.as_mut()) {
            selectors.want(sequence, sequence + 1, None);
            self.scanning.insert(no);
            self.looks_wait = false;
        }
    }

    /// Whether [`Broker::poll_looks`] may have something.
    pub fn wants_looks(&self) -> bool {
        !self.scanning.is_empty() && !self.looks_wait
    }

    /// Entries whose headers the core wants to see, of one queue. Each is answered by [`Broker::handle_looked`].
    pub fn poll_looks(&mut self, now: Now) -> Vec<Look> {
        self.now = now;
        let all: Vec<QueueNo> = self.scanning.iter().copied().collect();
        let looks = all
            .into_iter()
            .map(|no| self.looks_of(no))
            .find(|looks| !looks.is_empty());
        // Nothing more before a batch is durable, or what is under way has been looked at.
        self.looks_wait = looks.is_none();
        self.dispatch(now);
        looks.unwrap_or_default()
    }

    fn looks_of(&mut self, no: QueueNo) -> Vec<Look> {
        let durable = self.ledger.durable();
        let mut looks = Vec::new();
        let mut free = Vec::new();
        let Some(queue) = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut) else {
            self.scanning.remove(&no);
            return looks;
        };
        let Some(mut selectors) = queue.selectors.take() else {
            self.scanning.remove(&no);
            return looks;
        };
        while selectors.under_way.is_empty() && looks.len() < LOOK_COUNT_MAX {
            if selectors.scan.is_none() {
                selectors.scan = selectors.next.take();
            }
            let Some(scan) = &mut selectors.scan else { break };
            let next = queue.entries.next_from(scan.from).filter(|next| *next < scan.end);
            let Some(sequence) = next else {
                // Not before all are answered: what moved is looked at again.
                if !looks.is_empty() {
                    break;
                }
                selectors.scan = None;
                free.extend(selectors.take_behind());
                continue;
            };
            let entry = queue.entries.get(sequence).expect("it was just found");
            if queue.moved_at.max(entry.home) > durable {
                break;
            }
            scan.from = sequence + 1;
            let body = entry.bytes.body(|slot| self.ledger.chunk_in(slot));
            looks.push(Look {
                queue: no,
                sequence,
                body,
                header_len: entry.header_len,
            });
        }
        selectors.under_way = looks.iter().map(|look: &Look| look.sequence).collect();
        let works = selectors.has_work();
        queue.selectors = Some(selectors);
        for (sequence, selectors) in &mut free {
            queue.let_through(*sequence, std::mem::take(selectors));
        }
        if !free.is_empty() {
            self.mark_dirty(no);
        }
        if !works {
            self.scanning.remove(&no);
        }
        looks
    }

    /// What was asked for: header blocks, or `None` for one that is not where it was, or cannot be read.
    pub fn handle_looked(&mut self, looked: &[(Look, Option<Bytes>)], now: Now) {
        (self.now, self.looks_wait) = (now, false);
        for (look, block) in looked {
            self.looked(look, block.as_deref());
        }
        self.dispatch(now);
    }

    fn looked(&mut self, look: &Look, block: Option<&[u8]>) {
        let (no, sequence) = (look.queue, look.sequence);
        let queue = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut);
        let Some(queue) = queue else { return };
        let Some(selectors) = &mut queue.selectors else {
            return;
        };
        if !selectors.under_way.remove(&sequence) {
            return;
        }
        let wanted = selectors.scan.as_ref().map(|scan| scan.selectors.clone());
        match (block, queue.entries.get(sequence)) {
            (Some(block), Some(_)) => self.judge(no, sequence, block, wanted.as_ref()),
            (None, Some(entry)) => {
                // Where it is now it may be read; where it could not be read nobody will get it.
                let body = entry.bytes.body(|slot| self.ledger.chunk_in(slot));
                if body != look.body
                    && let Some(scan) = &mut selectors.scan
                {
                    scan.from = scan.from.min(sequence);
                }
            }
            (_, None) => {}
        }
    }

    /// Asks the selectors that are looked for about an entry.
    fn judge(&mut self, no: QueueNo, sequence: u64, block: &[u8], wanted: Option<&BTreeSet<SelectorNo>>) {
        let Some(queue) = self.queues.get_mut(no.0 as usize).and_then(Option::as_mut) else {
            return;
        };
        let (Some(selectors), Some(entry)) = (&queue.selectors, queue.entries.get(sequence)) else {
            return;
        };
        let headers = Headers::of(block, entry.fields());
        let is_wanted = |no: &SelectorNo| wanted.is_some_and(|wanted| wanted.contains(no));
        let asked = selectors.used.iter().filter(|(no, _)| is_wanted(no));
        let matched: BTreeSet<SelectorNo> = asked
            .filter(|(_, used)| headers.pass(&used.filter))
            .map(|(no, _)| *no)
            .collect();
        if !matched.is_empty() {
            queue.let_through(sequence, matched);
            self.mark_dirty(no);
        }
    }
}

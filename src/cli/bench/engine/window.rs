//! The frames of one connection that wait for their RECEIPT, at most as many as the window.

/// What waits for one RECEIPT.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Awaited {
    number: u64,
    /// From when its latency counts; 0 where nothing waits.
    pub(super) since_ns: u64,
    /// Messages that it confirms.
    pub(super) message_count: u64,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Window {
    /// The place is the receipt's number modulo the window.
    awaited: Vec<Awaited>,
    next: u64,
    open_count: usize,
    open_message_count: u64,
}

impl Window {
    pub(super) fn new(size: usize) -> Self {
        Self {
            awaited: vec![Awaited::default(); size],
            next: 0,
            open_count: 0,
            open_message_count: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open_count == 0
    }

    /// Messages without receipt.
    pub(super) fn message_count(&self) -> u64 {
        self.open_message_count
    }

    fn place(&self, number: u64) -> usize {
        (number % self.awaited.len() as u64) as usize
    }

    /// Whether another frame may be sent. A broker that answers out of order may leave an old one in the next place.
    pub(super) fn is_free(&self) -> bool {
        self.open_count < self.awaited.len()
            && self
                .awaited
                .get(self.place(self.next))
                .is_some_and(|awaited| awaited.since_ns == 0)
    }

    /// Takes the next place, which must be free, and gives the number of its receipt.
    pub(super) fn open(&mut self, since_ns: u64, message_count: u64) -> u64 {
        let number = self.next;
        let place = self.place(number);
        if let Some(awaited) = self.awaited.get_mut(place) {
            *awaited = Awaited {
                number,
                since_ns: since_ns.max(1),
                message_count,
            };
        }
        self.next += 1;
        self.open_count += 1;
        self.open_message_count += message_count;
        number
    }

    /// Takes a RECEIPT; gives what waited for it, or nothing if it was not due.
    pub(super) fn close(&mut self, number: u64) -> Option<Awaited> {
        let place = self.place(number);
        let awaited = self.awaited.get_mut(place)?;
        if awaited.since_ns == 0 || awaited.number != number {
            return None;
        }
        self.open_count -= 1;
        self.open_message_count -= awaited.message_count;
        Some(std::mem::take(awaited))
    }
}

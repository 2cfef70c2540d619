//! Numbers with meaning. Each is a newtype, so that one cannot be passed for another.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// The position of a batch in the journal; only grows, without holes. `Seq(0)` is before the first.
    Seq, u64
);
number!(
    /// One connection's protocol state, from accept to close; never reused while the broker runs.
    SessionNo, u64
);
number!(
    /// A subscription within its session; chosen by the session, never reused within it.
    SubNo, u32
);
number!(
    /// A transaction within its session; chosen by the session, never reused within it.
    TxNo, u32
);
number!(
    /// The core's name of a delivery within its session: from 1, growing, with gaps where a delivery was never handed out.
    Tag, u64
);
number!(
    /// The identity of a message, stable over redelivery and restart: epoch in the upper 24 bits, a counter below.
    MessageId, u64
);
number!(
    /// A place for one body chunk in the store's pool, overwritten in place and used again.
    SlotNo, u32
);
number!(
    /// The identity of one body chunk; never reused. A slot's content is valid only for the chunk number a fact names.
    ChunkNo, u64
);
number!(
    /// The term of one owner of a store; raised by one at every start.
    Epoch, u32
);

/// One body chunk in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// Where.
    pub slot: SlotNo,
    /// What must be found there.
    pub chunk: ChunkNo,
}

const COUNTER_BITS: u32 = 40;

impl Epoch {
    /// The first number of this term. Numbers handed out in one term are below those of the next, so an unclean
    /// stop can never lead to a number being handed out twice.
    pub fn first_id(self) -> u64 {
        u64::from(self.0) << COUNTER_BITS
    }
}

impl MessageId {
    /// The term in which the message was accepted, and its number within it.
    pub fn parts(self) -> (Epoch, u64) {
        let epoch = u32::try_from(self.0 >> COUNTER_BITS).expect("the upper 24 bits fit 32");
        (Epoch(epoch), self.0 & ((1 << COUNTER_BITS) - 1))
    }

    /// The inverse of [`MessageId::parts`]; `None` where either part is out of its range.
    pub fn from_parts(epoch: Epoch, number: u64) -> Option<Self> {
        (epoch.0 < 1 << 24 && number < 1 << COUNTER_BITS).then(|| Self(epoch.first_id() | number))
    }
}

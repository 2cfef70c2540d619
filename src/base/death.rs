//! What a message that was taken out of a queue for good, but kept, says of that: the newest first.
//!
//! ```text
//! count (u8), per death: reason (u8), failures (u32), deliveries (u32), time (u64), then the lengths (u16) and the UTF-8 of
//! the queue's name and of the consumer's words; all numbers big-endian
//! ```

use std::sync::Arc;

use bytes::Bytes;

/// Why a message was taken out of its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeathReason {
    /// It failed as often as it may.
    Failures,
    /// A consumer said that it is not to be given again.
    Rejected,
    /// Its time had come.
    Expired,
    /// It made room for newer ones.
    Overflow,
}

impl DeathReason {
    const ALL: [(Self, u8, &'static str); 4] = [
        (Self::Failures, 1, "failures"),
        (Self::Rejected, 2, "rejected"),
        (Self::Expired, 3, "expired"),
        (Self::Overflow, 4, "overflow"),
    ];

    /// Its name in headers and in the API.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(reason, ..)| *reason == self);
        found.map_or("", |(.., name)| name)
    }

    fn number(self) -> u8 {
        let found = Self::ALL.iter().find(|(reason, ..)| *reason == self);
        found.map_or(0, |(_, number, _)| *number)
    }
}

/// One time at which a message was taken out of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The queue.
    pub queue: Arc<str>,
    /// Why.
    pub reason: DeathReason,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// How often it had failed there.
    pub failures: u32,
    /// How often it had been delivered there.
    pub deliveries: u32,
    /// What the consumer said with its last NACK; empty for nothing.
    pub words: Arc<str>,
}

impl Death {
    /// Of so many a message tells.
    pub const COUNT_MAX: usize = 8;

    /// Writes the first [`Death::COUNT_MAX`].
    pub fn encode(deaths: &[Self]) -> Bytes {
        let deaths = deaths.get(..Self::COUNT_MAX).unwrap_or(deaths);
        let mut out = vec![u8::try_from(deaths.len()).expect("there are few")];
        for death in deaths {
            out.push(death.reason.number());
            out.extend_from_slice(&death.failures.to_be_bytes());
            out.extend_from_slice(&death.deliveries.to_be_bytes());
            out.extend_from_slice(&death.at_ms.to_be_bytes());
            for text in [&death.queue, &death.words] {
                let len = u16::try_from(text.len()).expect("a header line is short");
                out.extend_from_slice(&len.to_be_bytes());
                out.extend_from_slice(text.as_bytes());
            }
        }
        out.into()
    }

    /// Reads them; what does not parse is left out.
    pub fn decode(bytes: &[u8]) -> Vec<Self> {
        let mut rest = bytes.get(1..).unwrap_or_default();
        let count = usize::from(bytes.first().copied().unwrap_or(0)).min(Self::COUNT_MAX);
        let one = || {
            let reason = *take(&mut rest, 1)?.first()?;
            let reason = DeathReason::ALL
                .iter()
                .find(|(_, number, _)| *number == reason)?
                .0;
            let failures = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
            let deliveries = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
            let at_ms = u64::from_be_bytes(take(&mut rest, 8)?.try_into().ok()?);
            Some(Self {
                reason,
                failures,
                deliveries,
                at_ms,
                queue: text(&mut rest)?,
                words: text(&mut rest)?,
            })
        };
        std::iter::from_fn(one).take(count).collect()
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(taken)
}

fn text(rest: &mut &[u8]) -> Option<Arc<str>> {
    let len = u16::from_be_bytes(take(rest, 2)?.try_into().ok()?);
    let text = std::str::from_utf8(take(rest, usize::from(len))?).ok()?;
    Some(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_garbage_is_left_out() {
        let death = |number: u32| Death {
            queue: format!("queue {number} ä").into(),
            reason: DeathReason::ALL[number as usize % 4].0,
            at_ms: u64::from(number) << 40,
            failures: number,
            deliveries: u32::MAX - number,
            words: "why?".repeat(number as usize).into(),
        };
        let deaths: Vec<Death> = (0..10).map(death).collect();
        for count in 0..=10 {
            let bytes = Death::encode(&deaths[..count]);
            assert_eq!(Death::decode(&bytes), deaths[..count.min(Death::COUNT_MAX)]);
            for cut in 0..bytes.len() {
                assert!(Death::decode(&bytes[..cut]).len() <= count);
            }
        }
        assert_eq!(Death::decode(&[255; 100]), []);
    }
}

//! What a queue declares of itself, by RabbitMQ's headers of SEND and SUBSCRIBE. The first frame that does counts; others must
//! say the same, or nothing.

use super::error::Violation;
use super::fields::number;
use crate::base::{Overflow, Policy, Setting, SettingKey, Settings};

/// What a header declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Declares {
    /// A number that is a setting as it stands, and more than 0.
    Number(&'static str),
    /// How often a message may come back before it is a dead letter.
    DeliveryLimit,
    /// What happens beyond the bounds.
    Overflow,
    /// The exchange for dead letters, of which there is only the default one.
    Exchange,
    /// The queue for dead letters.
    DeadLetterQueue,
}

/// What the headers of a frame declare.
#[derive(Debug, Default)]
pub(super) struct Declaration {
    settings: Settings,
    exchange: bool,
    bounded: bool,
    overflow: bool,
    target: bool,
}

impl Declaration {
    /// Takes a header; of a repeated one the first counts.
    pub(super) fn take(
        &mut self,
        what: Declares,
        header: &'static str,
        value: &[u8],
    ) -> Result<(), Violation> {
        let invalid = Violation::HeaderInvalid { header };
        let some = || number(value).filter(|number| *number > 0).ok_or(invalid);
        match what {
            Declares::Number(setting) => {
                self.bounded |= setting != "message_ttl_ms";
                self.state(setting, Setting::Number(some()?), header)
            }
            Declares::DeliveryLimit => {
                let limit = number(value).ok_or(invalid)?;
                self.state(
                    "deliveries_failed_max",
                    Setting::Number(limit.saturating_add(1)),
                    header,
                )
            }
            Declares::Overflow => {
                self.overflow = true;
                let overflow = match value {
                    b"drop-head" => "drop-head",
                    b"reject-publish" => "refuse",
                    _ => return Err(Violation::HeaderUnsupported { header }),
                };
                self.state("overflow", Setting::Text(overflow.into()), header)
            }
            Declares::Exchange if value.is_empty() => {
                self.exchange = true;
                Ok(())
            }
            Declares::Exchange => Err(Violation::HeaderUnsupported { header }),
            Declares::DeadLetterQueue => {
                self.target = true;
                let name = std::str::from_utf8(value).map_err(|_| invalid)?;
                // It would stand for the queue's own name.
                if name.is_empty() || name.contains('*') {
                    return Err(invalid);
                }
                self.state("dead_letter_queue", Setting::Text(name.into()), header)
            }
        }
    }

    fn state(&mut self, setting: &str, value: Setting, header: &'static str) -> Result<(), Violation> {
        let key = SettingKey::named(setting).expect("the table names settings that are");
        if self.settings.iter().any(|(there, _)| std::ptr::eq(there, key)) {
            return Ok(());
        }
        match self.settings.state(key, value) {
            true => Ok(()),
            false => Err(Violation::HeaderInvalid { header }),
        }
    }

    /// What is declared in all, if anything is.
    pub(super) fn end(mut self) -> Result<Option<Box<Settings>>, Violation> {
        if self.exchange && !self.target {
            return Err(Violation::HeaderMissing {
                header: "x-dead-letter-routing-key",
            });
        }
        if self.bounded && !self.overflow {
            // As RabbitMQ does where nothing is said.
            let overflow = match self.target {
                true => Overflow::DeadLetter,
                false => Overflow::DropHead,
            };
            let key = SettingKey::named("overflow").expect("it is a setting");
            let policy = Policy {
                overflow,
                ..Policy::default()
            };
            self.settings.state(key, key.of(&policy));
        }
        Ok((!self.settings.is_empty()).then(|| Box::new(self.settings)))
    }
}

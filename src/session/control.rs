//! Control: a SEND to `/control/NAME` is an order to the broker about something of its own connection, and no message: it is
//! never stored, and nobody gets it. Its RECEIPT says that the order has had its effect.

use super::Session;
use super::error::{Cause, Violation};
use super::fields::{Fields, number, required};
use super::rules::Rules;
use crate::port::Request;
use crate::wire::{Frame, unescape};

/// What the destinations of orders begin with.
const PREFIX: &[u8] = b"/control/";

/// The order that a SEND is, if it is one.
pub(super) fn order<'a>(fields: &Fields<'a>) -> Option<&'a [u8]> {
    fields.destination?.strip_prefix(PREFIX)
}

impl Session {
    /// Carries out an order.
    pub(super) fn control(
        &mut self,
        order: &[u8],
        frame: &Frame<'_>,
        fields: &Fields<'_>,
        rules: &Rules,
    ) -> Result<(), Cause> {
        if fields.transaction.is_some() {
            return Err(Violation::HeaderUnsupported {
                header: "transaction",
            }
            .into());
        }
        match order {
            b"credit" => self.ask_for_more(frame, fields, rules),
            b"renew" => self.renew(fields, rules),
            _ => Err(Violation::BadDestination.into()),
        }
    }

    /// `/control/renew`: the delivery may be unsettled for `ack-timeout` seconds from now on, or as long as it might before.
    fn renew(&mut self, fields: &Fields<'_>, rules: &Rules) -> Result<(), Cause> {
        let delivery = self.delivery(fields, rules)?;
        let ack_timeout_ms = fields.ack_timeout_ms()?;
        self.requests.list.push(Request::Renew {
            delivery,
            ack_timeout_ms,
        });
        Ok(())
    }

    /// `/control/credit`: the subscription may be given `credit` messages more.
    fn ask_for_more(&mut self, frame: &Frame<'_>, fields: &Fields<'_>, rules: &Rules) -> Result<(), Cause> {
        let named = unescape(rules.escapes(), required(fields.subscription, "subscription")?)?;
        let sub = self.subscriptions.named(&named, self.config.dialect, rules);
        let sub = sub.ok_or(Violation::SubscriptionUnknown)?;
        let credit = required(frame.first("credit"), "credit")?;
        let count = number(credit).filter(|count| *count > 0);
        let count = count.ok_or(Violation::HeaderInvalid { header: "credit" })?;
        // What is too large for a number of ours is too large for the core, which says so.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.requests.list.push(Request::Credit { sub, count });
        Ok(())
    }
}

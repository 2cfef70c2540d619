//! ACK and NACK, and the names of transactions.

use super::error::{Cause, Violation};
use super::fields::{Fields, number, required};
use super::rules::{AckKey, Rules};
use super::{Session, dialect, ids};
use crate::base::TxNo;
use crate::port::{DeliveryKey, Outcome, Refusal, Request, Settle, Why};
use crate::wire::{DecodeError, unescape};

/// The open transactions of a session. Few, as a rule, so they are searched and not indexed.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: Vec<(Box<[u8]>, TxNo)>,
    last: u32,
}

impl Session {
    pub(super) fn settle(&mut self, fields: &Fields<'_>, rules: &Rules, accepted: bool) -> Result<(), Cause> {
        if !accepted && !rules.nack {
            return Err(Violation::NackUnsupported.into());
        }
        let delivery = self.delivery(fields, rules)?;
        let outcome = match (accepted, fields.requeue) {
            (true, _) => Outcome::Accepted,
            (false, None) if dialect::nack_rejects(self.config.dialect) => Outcome::Rejected,
            (false, None | Some(b"true")) => Outcome::Failed,
            (false, Some(b"false")) => Outcome::Rejected,
            (false, Some(_)) => return Err(Violation::HeaderInvalid { header: "requeue" }.into()),
        };
        let why = match accepted {
            true => None,
            false => self.why(fields, rules)?,
        };
        let tx = self.transaction(fields, rules)?;
        self.requests.list.push(Request::Settle(Settle {
            delivery,
            outcome,
            why,
            tx,
        }));
        Ok(())
    }

    /// What a NACK says beyond that it is one.
    fn why(&self, fields: &Fields<'_>, rules: &Rules) -> Result<Option<Box<Why>>, Cause> {
        if fields.delay.is_none() && fields.reason.is_none() {
            return Ok(None);
        }
        let invalid = Violation::HeaderInvalid { header: "delay" };
        let delay_ms = fields
            .delay
            .map(|delay| number(delay).ok_or(invalid))
            .transpose()?;
        let reason = unescape(rules.escapes(), fields.reason.unwrap_or_default())?;
        let reason = std::str::from_utf8(&reason).map_err(|_| DecodeError::NotUtf8)?;
        let bytes_max = self.config.limits.reason_bytes_max.min(reason.len());
        let end = (0..=bytes_max).rev().find(|at| reason.is_char_boundary(*at));
        Ok(Some(Box::new(Why {
            delay_ms,
            words: reason.get(..end.unwrap_or(0)).unwrap_or_default().into(),
        })))
    }

    /// The delivery that an ACK, a NACK or an order names.
    pub(super) fn delivery(&self, fields: &Fields<'_>, rules: &Rules) -> Result<DeliveryKey, Cause> {
        let escapes = rules.escapes();
        let message = |text: &[u8]| ids::read_message(&self.config.store, text);
        let delivery = match rules.ack_key {
            AckKey::AckId => {
                let id = unescape(escapes, required(fields.id, "id")?)?;
                ids::read_tag(&self.id, &id).map(DeliveryKey::Tag)
            }
            AckKey::MessageIdAndSubscription => {
                let id = unescape(escapes, required(fields.message_id, "message-id")?)?;
                let sub = unescape(escapes, required(fields.subscription, "subscription")?)?;
                let sub = self.subscriptions.find_or_ended(&sub);
                message(&id)
                    .filter(|_| sub.is_some())
                    .map(|id| DeliveryKey::Message(sub, id))
            }
            AckKey::MessageId => {
                let id = unescape(escapes, required(fields.message_id, "message-id")?)?;
                let sub = fields.subscription.and_then(|id| self.subscriptions.find(id));
                message(&id).map(|id| DeliveryKey::Message(sub, id))
            }
        };
        Ok(delivery.ok_or(Refusal::DeliveryUnknown)?)
    }

    /// The open transaction that a SEND, ACK or NACK names.
    pub(super) fn transaction(&self, fields: &Fields<'_>, rules: &Rules) -> Result<Option<TxNo>, Cause> {
        let Some(raw) = fields.transaction else {
            return Ok(None);
        };
        let name = unescape(rules.escapes(), raw)?;
        let open = self.transactions.open.iter().find(|(own, _)| **own == *name);
        Ok(Some(open.ok_or(Refusal::TransactionUnknown)?.1))
    }

    pub(super) fn begin(&mut self, fields: &Fields<'_>, rules: &Rules) -> Result<(), Cause> {
        let name = unescape(rules.escapes(), required(fields.transaction, "transaction")?)?;
        let Transactions { open, last } = &mut self.transactions;
        if open.iter().any(|(own, _)| **own == *name) {
            return Err(Violation::TransactionExists.into());
        }
        if open.len() >= self.config.limits.transaction_count_max {
            return Err(Violation::TooManyTransactions.into());
        }
        // A connection may live for more transactions than there are numbers: one that is open is not taken again.
        loop {
            *last = last.wrapping_add(1);
            if open.iter().all(|(_, tx)| tx.0 != *last) {
                break;
            }
        }
        let tx = TxNo(*last);
        open.push((name.as_ref().into(), tx));
        self.requests.list.push(Request::Begin { tx });
        Ok(())
    }

    /// COMMIT or ABORT.
    pub(super) fn end_transaction(
        &mut self,
        fields: &Fields<'_>,
        rules: &Rules,
        request: impl FnOnce(TxNo) -> Request,
    ) -> Result<(), Cause> {
        required(fields.transaction, "transaction")?;
        if let Some(tx) = self.transaction(fields, rules)? {
            self.transactions.open.retain(|(_, open)| *open != tx);
            self.requests.list.push(request(tx));
        }
        Ok(())
    }
}

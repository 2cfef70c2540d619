//! The one table of what the versions change in the meaning of frames.
//!
//! # Not here
//! What they change in the grammar (line ends, padding, escapes): `wire::Grammar`.

use crate::wire::{Escapes, Version};

/// What a version asks for. One session has one, from CONNECT on.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) version: Version,
    /// Heart-beats are agreed at CONNECT.
    pub(super) heart_beat: bool,
    /// Headers are UTF-8.
    pub(super) utf8: bool,
    /// SUBSCRIBE needs `id`; otherwise its destination may stand for it, in UNSUBSCRIBE too.
    pub(super) subscription_id: bool,
    /// A body of SUBSCRIBE is ignored instead of refused.
    pub(super) subscribe_body: bool,
    /// There is the ack mode `client-individual`.
    pub(super) client_individual: bool,
    /// There is NACK.
    pub(super) nack: bool,
    /// What ACK and NACK name a delivery by.
    pub(super) ack_key: AckKey,
}

/// What ACK and NACK name a delivery by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AckKey {
    /// `message-id`, and `subscription` where the client likes.
    MessageId,
    /// `message-id` and `subscription`.
    MessageIdAndSubscription,
    /// `id`: the `ack` header of the MESSAGE.
    AckId,
}

static V10: Rules = Rules {
    version: Version::V10,
    heart_beat: false,
    utf8: false,
    subscription_id: false,
    subscribe_body: true,
    client_individual: false,
    nack: false,
    ack_key: AckKey::MessageId,
};

static V11: Rules = Rules {
    version: Version::V11,
    heart_beat: true,
    utf8: true,
    subscription_id: true,
    subscribe_body: false,
    client_individual: true,
    nack: true,
    ack_key: AckKey::MessageIdAndSubscription,
};

static V12: Rules = Rules {
    version: Version::V12,
    heart_beat: true,
    utf8: true,
    subscription_id: true,
    subscribe_body: false,
    client_individual: true,
    nack: true,
    ack_key: AckKey::AckId,
};

impl Rules {
    /// Those of a version.
    pub(super) fn of(version: Version) -> &'static Self {
        match version {
            Version::V10 => &V10,
            Version::V11 => &V11,
            Version::V12 => &V12,
        }
    }

    pub(super) fn escapes(&self) -> Escapes {
        self.version.grammar().escapes
    }
}

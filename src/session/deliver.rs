//! MESSAGE: from a delivery to a frame.

use memchr::{memchr, memmem};

use super::ids::{write_message, write_number};
use super::rules::Rules;
use super::subscribe::Subscription;
use crate::base::Death;
use crate::port::Delivery;
use crate::wire::{Escapes, FRAME_END, Part, escape, transcode};

/// More than all that the broker adds to a header block, but for the subscription's id.
const ADDED_BYTES: usize = 192;

/// Appends a MESSAGE. What the broker adds comes first, so that it wins over a repeated header of the producer.
pub(super) fn write(
    subscription: &Subscription,
    session_id: &str,
    rules: &Rules,
    delivery: &Delivery,
    pieces: &[&[u8]],
    out: &mut Vec<u8>,
) {
    out.reserve(subscription.message_head.len() + ADDED_BYTES + delivery.len as usize);
    out.extend_from_slice(&subscription.message_head);
    write_message(delivery.message, out);
    if subscription.ack_id {
        out.extend_from_slice(b"\nack:");
        out.extend_from_slice(session_id.as_bytes());
        out.push(b'-');
        write_number(delivery.tag.0, out);
    }
    out.extend_from_slice(match delivery.redelivered {
        true => b"\nredelivered:true\ndelivery-count:",
        false => b"\nredelivered:false\ndelivery-count:",
    });
    write_number(u64::from(delivery.delivery_count), out);
    if let (Some(head), Some(sequence)) = (&subscription.sequence_head, delivery.sequence) {
        out.extend_from_slice(head);
        write_number(sequence, out);
    }
    out.push(b'\n');
    if let Some(death) = &delivery.death {
        write_death(death, rules.escapes(), out);
    }
    let block_start = out.len();
    let mut header_left = delivery.header_len as usize;
    let mut ended = false;
    for piece in pieces {
        let (block, body) = piece.split_at(header_left.min(piece.len()));
        out.extend_from_slice(block);
        header_left -= block.len();
        if header_left == 0 && !ended {
            end_block(block_start, rules.escapes(), out);
            if subscription.browser && delivery.sequence.is_some() {
                deny_end(block_start, out);
            }
            ended = true;
        }
        out.extend_from_slice(body);
    }
    assert!(ended, "the pieces hold the whole header block");
    out.extend_from_slice(FRAME_END);
}

/// A producer's header could be taken for the marker of a browser's end: then the broker says before it that it is none.
fn deny_end(block_start: usize, out: &mut Vec<u8>) {
    let block = out.get(block_start..).unwrap_or_default();
    if memmem::find(block, b"\nbrowser:end\n").is_some() {
        out.splice(block_start..block_start, *b"browser:false\n");
    }
}

/// The headers of a message that was taken out of a queue for good.
fn write_death(death: &Death, escapes: Escapes, out: &mut Vec<u8>) {
    out.extend_from_slice(b"dead-letter-origin:");
    escape(escapes, Part::Value, death.queue.as_bytes(), out);
    out.extend_from_slice(b"\ndead-letter-reason:");
    out.extend_from_slice(death.reason.name().as_bytes());
    out.extend_from_slice(b"\ndead-letter-failures:");
    write_number(u64::from(death.failures), out);
    out.extend_from_slice(b"\ndead-letter-time:");
    write_number(death.at_ms, out);
    if !death.words.is_empty() {
        out.extend_from_slice(b"\ndead-letter-text:");
        escape(escapes, Part::Value, death.words.as_bytes(), out);
    }
    out.push(b'\n');
}

/// Ends the header block that was copied to the end of `out`; the stored form is that of 1.2.
fn end_block(start: usize, escapes: Escapes, out: &mut Vec<u8>) {
    let stored = out.get(start..).unwrap_or_default();
    if escapes != Escapes::Four && memchr(b'\\', stored).is_some() {
        let stored = out.split_off(start);
        transcode(escapes, &stored, out);
    }
    out.push(b'\n');
}

//! The whole body of one message, as bytes, however large: a piece at a time.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::ChunkRef;
use crate::port::{Body, EntryView, Refusal};

use super::super::connection::Shared;
use super::problem::Problem;
use super::stream::{self, GivenUp, Out};
use super::{Answer, ApiCode, Parts};

/// Chunks read in one go: 256 KiB.
const RUN_CHUNK_COUNT: usize = 16;

impl Parts {
    /// The body of the message with a queue sequence.
    pub(super) fn whole_body(&self, queue: &str, sequence: u64) -> Result<Answer, Problem> {
        self.shared.core.queue(queue).ok_or(Refusal::QueueUnknown)?;
        let page = self.shared.core.entries(queue, sequence, 1);
        let entry = page.items.into_iter().find(|entry| entry.sequence == sequence);
        let entry = entry.ok_or_else(|| {
            let text = format!("the queue has no message with the sequence {sequence}");
            Problem::new(ApiCode::MessageUnknown, text)
        })?;
        let (out, answer) = stream::open();
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(why) = out.drive(send(&shared, entry, &out)).await {
                tracing::debug!("a body was not sent to its end: {why}");
            }
        });
        Ok(answer)
    }
}

async fn send(shared: &Arc<Shared>, entry: EntryView, out: &Out) -> Result<(), GivenUp> {
    shared.core.wait_durable(entry.gate).await;
    let (mut skip, mut left) = (entry.header_len as usize, entry.len as usize);
    let chunks: Vec<ChunkRef> = match &entry.body {
        Body::Memory(bytes) => return out.send(bytes.slice(skip..)).await,
        Body::Stored { chunk, offset } => {
            skip += *offset as usize;
            left += *offset as usize;
            vec![*chunk]
        }
        Body::Extent(chunks) => chunks.to_vec(),
    };
    for run in chunks.chunks(RUN_CHUNK_COUNT) {
        for (_, payload) in Arc::clone(&shared.bodies).look(run.to_vec()).await {
            let payload = payload.map_err(GivenUp::Store)?;
            let mut piece: Bytes = payload.slice(..payload.len().min(left));
            left -= piece.len();
            let header = piece.split_to(piece.len().min(skip));
            skip -= header.len();
            out.send(piece).await?;
        }
    }
    Ok(())
}

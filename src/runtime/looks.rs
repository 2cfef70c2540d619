//! Shows the core the headers that it asks for, so that selectors can be asked about what was stored before they came.
//!
//! # Invariants
//! - What is read here never drives out of memory what consumers need, and is about 1 MiB at a time at most.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::ChunkRef;
use crate::broker::Look;
use crate::port::Body;

use super::bodies::{Chunks, RUN_CHUNK_COUNT_MAX, chunks_for, first_bytes};
use super::connection::Shared;

/// As long as the broker runs.
pub(crate) async fn show_headers(shared: Arc<Shared>) {
    loop {
        let looks = shared.core.wait_looks().await;
        let mut looked = Vec::with_capacity(looks.len());
        let mut rest = looks.into_iter().peekable();
        while rest.peek().is_some() {
            let mut places: Vec<ChunkRef> = Vec::new();
            let mut run = Vec::new();
            while places.len() < RUN_CHUNK_COUNT_MAX
                && let Some(look) = rest.next()
            {
                match &look.body {
                    // Messages lie end to end: mostly the next one is in the same chunk.
                    Body::Stored { chunk, .. } if places.last() != Some(chunk) => places.push(*chunk),
                    Body::Extent(chunks) => places.extend(chunks_for(chunks, look.header_len as usize)),
                    Body::Stored { .. } | Body::Memory(_) => {}
                }
                run.push(look);
            }
            let chunks: Chunks = shared.bodies.look(places).await.into_iter().collect();
            let block = |look: &Look| match first_bytes(&look.body, look.header_len as usize, &chunks) {
                Some(Ok(block)) => Some(Bytes::from(block)),
                Some(Err(_)) | None => None,
            };
            looked.extend(run.into_iter().map(|look| {
                let block = block(&look);
                (look, block)
            }));
        }
        shared.core.handle_looked(&looked);
    }
}

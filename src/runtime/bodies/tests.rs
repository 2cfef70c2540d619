use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::base::{ChunkNo, Seq, SlotNo};
use crate::journal::{Batch, IndexChunk, IndexSize, Recovered};
use crate::store::StoreStats;

fn place(number: u32) -> ChunkRef {
    ChunkRef {
        slot: SlotNo(number),
        chunk: ChunkNo(u64::from(number)),
    }
}

fn write(number: u32, len: usize) -> ChunkWrite {
    ChunkWrite {
        place: place(number),
        payload: vec![number as u8; len].into(),
    }
}

/// Knows the even chunks; the odd ones are gone.
#[derive(Default)]
struct Even {
    read_count: AtomicUsize,
}

impl Store for Even {
    fn recover(&self, _visit: &mut dyn FnMut(IndexChunk)) -> Result<Recovered, StoreError> {
        Ok(Recovered::default())
    }

    fn index(&self, _: Seq, _: Seq, _: usize) -> Result<Vec<IndexChunk>, StoreError> {
        Ok(Vec::new())
    }

    fn append(&self, _batch: &Batch) -> Result<IndexSize, StoreError> {
        Ok(IndexSize::default())
    }

    fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn body(&self, place: ChunkRef) -> Result<Bytes, StoreError> {
        self.read_count.fetch_add(1, Ordering::Relaxed);
        if place.slot.0.is_multiple_of(2) {
            Ok(vec![place.slot.0 as u8; 10].into())
        } else {
            Err(StoreError::Gone(place))
        }
    }

    fn tidy(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }
}

#[test]
fn the_cache_keeps_its_bound_and_drops_the_oldest() {
    let bodies = Bodies::new(Arc::new(Even::default()), 100, Arc::default());
    bodies.put(&(0..10).map(|n| write(n, 10)).collect::<Vec<_>>());
    assert!((0..10).all(|n| bodies.has(place(n))), "exactly at the bound");
    bodies.put(&[write(10, 1)]);
    assert!(!bodies.has(place(0)));
    assert!((1..11).all(|n| bodies.has(place(n))));
    bodies.put(&[write(11, 1_000)]);
    assert!((0..11).all(|n| !bodies.has(place(n))));
    assert_eq!(
        bodies.cached(place(11)).map(|b| b.len()),
        Some(1_000),
        "one is always kept"
    );
    assert_eq!(bodies.cache().bytes, 1_000);
}

#[test]
fn a_chunk_put_twice_counts_once() {
    let bodies = Bodies::new(Arc::new(Even::default()), 100, Arc::default());
    bodies.put(&[write(1, 60), write(1, 60)]);
    assert_eq!(bodies.cache().bytes, 60);
    assert_eq!(bodies.cache().order.len(), 1);
}

#[tokio::test]
async fn a_fetch_answers_in_order_and_fills_the_cache() {
    let store = Arc::new(Even::default());
    let bodies = Arc::new(Bodies::new(Arc::<Even>::clone(&store), 1_000, Arc::default()));
    let fetched = bodies.fetch(vec![place(4), place(3), place(2)]).await;
    let places: Vec<_> = fetched.iter().map(|(place, _)| place.slot.0).collect();
    assert_eq!(places, [4, 3, 2]);
    assert!(matches!(
        fetched
            .iter()
            .map(|(_, body)| body)
            .collect::<Vec<_>>()
            .as_slice(),
        [Ok(_), Err(StoreError::Gone(_)), Ok(_)]
    ));
    assert!(bodies.has(place(4)) && bodies.has(place(2)) && !bodies.has(place(3)));
    bodies.fetch(vec![place(4)]).await;
    assert_eq!(
        store.read_count.load(Ordering::Relaxed),
        3,
        "the second fetch finds it cached"
    );
}

#[tokio::test]
async fn a_look_leaves_the_cache_as_it_was() {
    let store = Arc::new(Even::default());
    let bodies = Arc::new(Bodies::new(Arc::<Even>::clone(&store), 1_000, Arc::default()));
    bodies.put(&[write(6, 10)]);
    let seen = bodies.look(vec![place(4), place(6)]).await;
    assert!(seen.iter().all(|(_, payload)| payload.is_ok()));
    assert!(!bodies.has(place(4)) && bodies.has(place(6)));
    assert_eq!(
        store.read_count.load(Ordering::Relaxed),
        1,
        "what is at hand is not read"
    );
}

#[tokio::test]
async fn a_dropped_fetch_gives_its_reader_back() {
    let bodies = Arc::new(Bodies::new(Arc::new(Even::default()), 1_000, Arc::default()));
    for _ in 0..READER_COUNT * 3 {
        let mut fetch = bodies.fetch(vec![place(2)]);
        let polled =
            std::future::poll_fn(|cx| std::task::Poll::Ready(fetch.as_mut().poll(cx).is_ready())).await;
        drop(fetch);
        let _ = polled;
    }
    assert_eq!(bodies.fetch(vec![place(2)]).await.len(), 1);
}

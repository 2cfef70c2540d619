//! A broker in this process, stopped and started at will.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use steadfast::base::Limits;
use steadfast::runtime::{Running, ServeOptions, Started, StatsView};
use steadfast::store::{MemoryStore, SledOptions, SledStore, Store};

use super::client::{Client, PATIENCE};

type Open = Box<dyn Fn(&Path) -> Arc<dyn Store>>;

pub(crate) struct Server {
    runtime: tokio::runtime::Runtime,
    running: Option<Running>,
    started: Option<Started>,
    open: Open,
    options: ServeOptions,
    _dir: tempfile::TempDir,
}

impl Server {
    /// With a store in memory, and limits changed.
    pub(crate) fn start(change: impl FnOnce(&mut ServeOptions)) -> Self {
        let store = Arc::new(MemoryStore::new([7; 16]));
        Self::with(move |_| Arc::<MemoryStore>::clone(&store), change)
    }

    /// With a store on disk.
    pub(crate) fn on_disk() -> Self {
        Self::with(
            |dir| {
                let options = SledOptions {
                    cache_bytes: SledOptions::CACHE_BYTES,
                    uuid: [7; 16],
                };
                Arc::new(SledStore::create_or_open(dir, options).unwrap())
            },
            |_| {},
        )
    }

    /// With a store of any kind, opened anew at each start.
    pub(crate) fn with(
        open: impl Fn(&Path) -> Arc<dyn Store> + 'static,
        change: impl FnOnce(&mut ServeOptions),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut options = ServeOptions {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
            data_dir: dir.path().join("data"),
            limits: Limits {
                disk_free_bytes_min: 0,
                ..Limits::default()
            },
            ..ServeOptions::default()
        };
        std::fs::create_dir(&options.data_dir).unwrap();
        change(&mut options);
        let mut server = Self {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap(),
            running: None,
            started: None,
            open: Box::new(open),
            options,
            _dir: dir,
        };
        server.start_again();
        server
    }

    pub(crate) fn start_again(&mut self) {
        let _inside = self.runtime.enter();
        let store = (self.open)(&self.options.data_dir);
        let (running, started) = Running::start(store, &self.options).unwrap();
        self.running = Some(running);
        self.started = Some(started);
    }

    /// A stop in good order; returns when it is complete.
    pub(crate) fn stop(&mut self) {
        let running = self.running.take().expect("it runs");
        self.runtime.block_on(running.stop());
    }

    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Begins a stop without waiting for its end.
    pub(crate) fn begin_stop(&mut self) -> tokio::task::JoinHandle<()> {
        let running = self.running.take().expect("it runs");
        self.runtime.spawn(running.stop())
    }

    pub(crate) fn wait<T>(&self, handle: tokio::task::JoinHandle<T>) -> T {
        self.runtime.block_on(handle).unwrap()
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running().addr().expect("it listens on TCP")
    }

    pub(crate) fn started(&self) -> &Started {
        self.started.as_ref().expect("it was started")
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    pub(crate) fn stats(&self) -> StatsView {
        self.running().stats()
    }

    /// Waits until the counters are as they should be.
    pub(crate) fn await_stats(&self, what: &str, done: impl Fn(&StatsView) -> bool) {
        let start = Instant::now();
        while !done(&self.stats()) {
            assert!(
                start.elapsed() < PATIENCE,
                "waiting for {what}: {:?}",
                self.stats()
            );
            std::thread::yield_now();
        }
    }
}

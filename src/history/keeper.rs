//! Writes receipts: at the end of a command, or, while it goes on, in a thread of its own, so that no frame
//! and no other event waits for the disk.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use log::{debug, warn};
use nix::sys::signal::SigSet;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::receipt::Fresh;
use super::store::Store;
use crate::settings::Settings;

/// Receipts that may wait for the disk; more are lost.
const MOST_WAITING: usize = 1000;
/// How long the process lasts for a disk that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps receipts. Until there is one, it does nothing: a first frame may be due.
#[derive(Debug)]
pub(crate) struct Keeper {
    settings: Rc<Settings>,
    /// Once opened; `None`: the settings want none.
    store: OnceCell<Option<Store>>,
    writer: RefCell<Option<Writer>>,
}

#[derive(Debug)]
struct Writer {
    receipts: SyncSender<Fresh>,
    done: oneshot::Receiver<()>,
}

impl Keeper {
    /// As the settings want it.
    pub(crate) fn new(settings: Rc<Settings>) -> Self {
        Self {
            settings,
            store: OnceCell::new(),
            writer: RefCell::new(None),
        }
    }

    /// Writes receipts, when there is nothing else to do.
    pub(crate) fn write(&self, receipts: Vec<Fresh>) {
        if let Some(store) = self.store_for(&receipts) {
            append(store, receipts, &mut false);
        }
    }

    fn store_for(&self, receipts: &[Fresh]) -> Option<&Store> {
        if receipts.is_empty() {
            return None;
        }
        let settings = &self.settings;
        if !settings.history && settings.metrics_file().is_some() {
            warn!("no metrics are written: they come from the history, and `history` is false");
        }
        let open = || settings.history.then(|| Store::of(settings));
        self.store.get_or_init(open).as_ref()
    }

    /// Passes receipts to the thread, which the first one starts.
    pub(crate) fn keep(&self, receipts: Vec<Fresh>) {
        let Some(store) = self.store_for(&receipts) else {
            return;
        };
        for receipt in receipts {
            let mut writer = self.writer.borrow_mut();
            if writer.is_none() {
                match Writer::start(store.clone()) {
                    Ok(started) => *writer = Some(started),
                    Err(error) => {
                        debug!("no receipt is kept: {error}");
                        return;
                    }
                }
            }
            let writer = writer.as_ref();
            if writer.is_some_and(|writer| writer.receipts.try_send(receipt).is_err()) {
                debug!("a receipt is lost: the disk does not answer");
            }
        }
    }

    /// Waits until all are written.
    pub(crate) async fn finish(&self) {
        let Some(Writer { receipts, done }) = self.writer.take() else {
            return;
        };
        drop(receipts);
        if timeout(PATIENCE, done).await.is_err() {
            debug!("receipts are lost: the disk does not answer");
        }
    }
}

impl Writer {
    fn start(store: Store) -> io::Result<Self> {
        let (receipts, waiting) = sync_channel(MOST_WAITING);
        let (ended, done) = oneshot::channel();
        let write = move || {
            write(&store, &waiting);
            // Fails if nobody waits any more: the process ends.
            let _ = ended.send(());
        };
        // The thread inherits that it gets no signals: those are the main thread's.
        let signals = SigSet::all();
        let before = SigSet::thread_get_mask();
        signals.thread_block()?;
        let started = thread::Builder::new().stack_size(STACK).spawn(write);
        if let Ok(before) = before {
            before.thread_set_mask()?;
        }
        started?;
        Ok(Self { receipts, done })
    }
}

/// What JSON of bounded depth needs, several times over.
const STACK: usize = 512 * 1024;

fn write(store: &Store, waiting: &Receiver<Fresh>) {
    let mut told = false;
    while let Ok(first) = waiting.recv() {
        let receipts = std::iter::once(first).chain(waiting.try_iter()).collect();
        append(store, receipts, &mut told);
    }
}

/// Appends receipts, and says once why that fails.
fn append(store: &Store, receipts: Vec<Fresh>, told: &mut bool) {
    match store.append(receipts) {
        Ok(Err(metrics)) if !*told => {
            *told = true;
            let (file, source) = (metrics.file.display(), metrics.source);
            warn!("cannot write the metrics {file}: {source}");
        }
        Err(error) if !*told => {
            *told = true;
            let path = store.path();
            let path = path.display();
            match store.metrics() {
                Some(metrics) => warn!(
                    "no receipt is kept in {path}, and {} is not brought up to date: {error}",
                    metrics.display()
                ),
                None => debug!("no receipt is kept in {path}: {error}"),
            }
        }
        _ => {}
    }
}

//! Writes receipts in a thread of its own, so that no frame, no other event and no signal waits for the
//! disk, or for other processes that write.

use std::cell::{OnceCell, RefCell};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use log::{debug, warn};
use nix::sys::signal::SigSet;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::receipt::Fresh;
use super::store::Store;
use crate::settings::Settings;
use crate::signals::termination;

/// Receipts that may wait for the disk; more are lost.
const MOST_WAITING: usize = 1000;
/// How long the process lasts for a disk that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same after a signal, which shall end the process within 50 ms. A disk that answers takes a few.
const HURRY: Duration = Duration::from_millis(25);

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
    /// Whether to wait no longer for other processes.
    hurries: Arc<AtomicBool>,
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
                        warn!("no receipt is kept: {error}");
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

    /// Waits until all are written, but neither for other processes nor for long once a signal has told
    /// this one to end.
    pub(crate) async fn finish(&self, is_ended: bool) {
        let Some(writer) = self.writer.take() else {
            return;
        };
        drop(writer.receipts);
        let mut done = pin!(writer.done);
        if !is_ended {
            tokio::select! {
                biased;
                _ = &mut done => return,
                _ = termination() => {}
                () = sleep(PATIENCE) => {}
            }
        }
        writer.hurries.store(true, Ordering::Relaxed);
        if timeout(HURRY, done).await.is_err() {
            warn!("no receipt is kept: the disk does not answer in time");
        }
    }
}

impl Writer {
    fn start(store: Store) -> io::Result<Self> {
        let (receipts, waiting) = sync_channel(MOST_WAITING);
        let (ended, done) = oneshot::channel();
        let hurries = Arc::new(AtomicBool::new(false));
        let hurry = Arc::clone(&hurries);
        let write = move || {
            write(&store, &waiting, &hurry);
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
        Ok(Self {
            receipts,
            done,
            hurries,
        })
    }
}

/// What JSON of bounded depth needs, several times over.
const STACK: usize = 512 * 1024;

fn write(store: &Store, waiting: &Receiver<Fresh>, hurries: &AtomicBool) {
    let mut told = false;
    while let Ok(first) = waiting.recv() {
        let receipts = std::iter::once(first).chain(waiting.try_iter()).collect();
        append(store, receipts, hurries, &mut told);
    }
}

/// Appends receipts, and says once why that fails.
fn append(store: &Store, receipts: Vec<Fresh>, hurries: &AtomicBool, told: &mut bool) {
    match store.append(receipts, hurries) {
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
                None if error.kind() == io::ErrorKind::WouldBlock => {
                    warn!("no receipt is kept in {path}: another process keeps it locked");
                }
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

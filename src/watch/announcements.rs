//! The announcements and purges that moves of VIPs began.

use std::rc::Rc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use vipherald_core::host::PlacedVip;
use vipherald_core::watch::{Move, Moved};

use super::{Act, Watcher};
use crate::error::Error;
use crate::exit::Exit;
use crate::signals::Stop;

/// One of them.
struct Announcing {
    unit: String,
    vips: Vec<PlacedVip>,
    /// Whether it asks late hosts alone.
    is_for_late: bool,
    stop: watch::Sender<()>,
}

/// All of them. A newer announcement makes an older one of the same VIP yield, as in other processes.
pub(crate) struct Announcements<A> {
    act: Rc<A>,
    begun: Vec<Announcing>,
    tasks: JoinSet<()>,
}

impl<A: Act + 'static> Announcements<A> {
    pub(crate) fn new(act: Rc<A>) -> Self {
        Self {
            act,
            begun: Vec::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Does what the kernel and other hosts have reported.
    pub(crate) async fn act(&mut self, watcher: &mut Watcher) -> Result<(), Error> {
        for moved in watcher.take_moves().await? {
            self.begin(moved, watcher);
        }
        for found in watcher.take_found().await? {
            let act = Rc::clone(&self.act);
            self.tasks
                .spawn_local(async move { act.is_elsewhere(found).await });
        }
        Ok(())
    }

    /// Does what a move calls for.
    fn begin(&mut self, moved: Moved, watcher: &mut Watcher) {
        self.forget_ended();
        let Moved {
            unit,
            how,
            peers,
            vips,
        } = moved;
        let is_for_late = how == Move::AreAskedFor;
        let is_announcing = |one: &&Announcing| vips.iter().any(|vip| one.vips.contains(vip));
        if is_for_late && let Some(one) = self.begun.iter().find(is_announcing) {
            // One for all asks them itself.
            if one.is_for_late {
                watcher.are_late(&vips, &peers);
            }
            return;
        }
        let act = Rc::clone(&self.act);
        if how == Move::Left {
            let is_left = |vips: &[PlacedVip]| !vips.iter().any(|vip| watcher.holds(vip));
            self.stop_if(|one| one.unit == unit && is_left(&one.vips));
            self.tasks
                .spawn_local(async move { act.left(&unit, vips).await });
            return;
        }
        let start = watcher.start_of(&vips);
        let (stop, mut stopped) = watch::channel(());
        self.begun.push(Announcing {
            unit: unit.clone(),
            vips: vips.clone(),
            is_for_late,
            stop,
        });
        self.tasks.spawn_local(async move {
            let newer: Stop = Box::pin(async move {
                match stopped.changed().await {
                    Ok(()) => Exit::Superseded,
                    // This is ending, and waits for the announcement.
                    Err(_) => std::future::pending().await,
                }
            });
            act.came(&unit, vips, peers, start, newer).await;
        });
    }

    /// Stops the announcements for these units: a newer event calls for something else.
    pub(crate) fn stop(&mut self, units: &[String]) {
        self.stop_if(|one| units.contains(&one.unit));
    }

    fn stop_if(&mut self, is_it: impl Fn(&Announcing) -> bool) {
        self.begun.retain(|one| {
            let stops = is_it(one);
            if stops {
                one.stop.send_replace(());
            }
            !stops
        });
    }

    /// The units whose VIPs are being announced.
    pub(crate) fn units(&mut self) -> Vec<String> {
        self.forget_ended();
        self.begun.iter().map(|one| one.unit.clone()).collect()
    }

    fn forget_ended(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.begun.retain(|one| !one.stop.is_closed());
    }

    /// Waits for those in progress.
    pub(crate) async fn finish(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

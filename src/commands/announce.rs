//! `announce`: as their new owner, announce VIPs to every host on their link.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::pending;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use log::{debug, warn};
use tokio::time::{sleep, timeout};
use vipherald_core::address::{Mac, Prefix, Vip};
use vipherald_core::announce::{Announcement, Claim, News, Pace, State};
use vipherald_core::ask::Confirm;
use vipherald_core::host::PlacedVip;

use super::output::Done;
use super::target::Target;
use crate::announce::{Session, Start};
use crate::answering::{Observer, Silence, why_silent};
use crate::cli::{Announce, Global};
use crate::error::Error;
use crate::exit::Exit;
use crate::kernel::{self, Kernel};
use crate::report::{AnnounceReport, Background, Line, Told};
use crate::settings::Settings;
use crate::signals::termination;
use crate::{announce, check};

/// The observer starts after this time, so that it does not delay the first frames, not even those of
/// many VIPs.
const FIRST_FRAMES: Duration = Duration::from_millis(100);
/// What waits for the first round waits no longer than this.
const FIRST_ROUND: Duration = Duration::from_secs(2);
/// If more MACs answer for a VIP, it is a loop or an attack, and none of them is asked.
const MOST_OTHER_OWNERS: usize = 8;

pub(super) async fn announce(
    args: &Announce,
    settings: &Settings,
    global: &Global,
    began: Instant,
) -> Result<Done, Error> {
    let target = Target::asked_for(&args.whose, global)?;
    let mut request = target.to_announce(settings);
    request.interface.clone_from(&args.interface);
    request.peers.extend(&args.peers);
    request.confirm = args.confirm.unwrap_or(request.confirm);
    request.sweeps_all = args.confirm == Some(Confirm::Subnet);
    // A time-out on the command line limits the whole run.
    let by_default = args
        .timeout
        .map_or(request.pace.conflict_watch, |_| Duration::ZERO);
    request.pace = Pace {
        rate: args.rate.unwrap_or(request.pace.rate),
        arp_rate: args.arp_rate.or(request.pace.arp_rate),
        wait: args.wait.unwrap_or(request.pace.wait),
        timeout: args.timeout.unwrap_or(request.pace.timeout),
        conflict_watch: args.conflict_watch.unwrap_or(by_default),
        ..request.pace
    };
    let stop = Box::pin(termination());
    let done = run(&target, &request, global, began, stop, || ()).await;
    warn_of_unfit(&args.peers, &target.vips).await;
    done
}

/// Warns of named peers that can be no host that follows. It comes last, because no frame waits for it.
async fn warn_of_unfit(peers: &[IpAddr], vips: &[PlacedVip]) {
    if peers.is_empty() {
        return;
    }
    let host = async { Kernel::connect()?.snapshot().await };
    let host = host.await.unwrap_or_default();
    let subnets: BTreeSet<_> = host.addresses.iter().map(Prefix::of).collect();
    for peer in peers {
        let of_family = |placed: &PlacedVip| placed.vip.ip().is_ipv4() == peer.is_ipv4();
        if !vips.iter().any(of_family) {
            warn!("{peer} is not asked: no VIP is of its address family");
        }
        let is_broadcast = |subnet: &&Prefix| subnet.broadcast().map(IpAddr::from) == Some(*peer);
        if let Some(subnet) = subnets.iter().find(is_broadcast) {
            warn!("{peer} is no host: it is the broadcast address of {subnet}");
        }
    }
}

/// Announces until done, or until `stop`, and reports. Calls `after_first_round` once that is out.
pub(super) async fn run(
    target: &Target,
    request: &announce::Request,
    global: &Global,
    began: Instant,
    stop: impl Future<Output = Exit>,
    after_first_round: impl FnOnce(),
) -> Result<Done, Error> {
    let session = Session::prepare(request, began).await?;
    go_on(session, target, request, global, stop, after_first_round).await
}

/// The same, from what a resident has ready.
pub(super) async fn run_from(
    start: Option<Start>,
    target: &Target,
    request: &announce::Request,
    global: &Global,
    stop: impl Future<Output = Exit>,
) -> Result<Done, Error> {
    let session = Session::prepare_from(request, start, Instant::now()).await?;
    go_on(session, target, request, global, stop, || ()).await
}

async fn go_on(
    mut session: Session,
    target: &Target,
    request: &announce::Request,
    global: &Global,
    stop: impl Future<Output = Exit>,
    after_first_round: impl FnOnce(),
) -> Result<Done, Error> {
    let name = target.name.as_deref();
    if global.dry_run {
        let plan = AnnounceReport::planned(name, session.core()).await;
        return Ok(Done::print(global, &plan)?.stopped(Some(Exit::Done)));
    }
    // The user vouches for the peers that the command line or the settings name.
    let named = request.peers.get(target.peers.len()..).unwrap_or_default();
    let nodes = target.peers.iter().filter(|node| !named.contains(node));
    let nodes: Vec<_> = nodes.copied().collect();
    let mut background = Background {
        real_servers: &target.real_servers,
        nodes: &nodes,
        ..Background::default()
    };
    let mut told = Told::default();
    // Lines that are worth a look only if somebody answers.
    let mut waiting = Vec::new();
    let log_news = |core: &Announcement, news: &News| {
        waiting.extend(told.lines(name, core, news, &background));
        let is_in_vain = request.is_in_vain(core);
        let due = waiting.extract_if(.., |line: &mut Line| !is_in_vain || line.is_error());
        due.for_each(|line| line.log());
    };
    let first_round = session.first_round();
    let mut observer = None;
    let stopped = tokio::select! {
        stopped = session.run(stop, log_news) => stopped,
        never = observe(&request.vips, &mut observer) => match never {},
        never = async {
            // An interface without a carrier may hold it up for long.
            let _ = timeout(FIRST_ROUND, first_round.notified()).await;
            after_first_round();
            pending::<Infallible>().await
        } => match never {},
    };
    let stopped = stopped.inspect_err(|_| waiting.iter().for_each(Line::log))?;
    let core = session.core();
    let now = Instant::now();
    match stopped {
        None => {
            background.silences = silences(core, observer.as_ref()).await;
            background.proxies = proxies(core, request).await;
        }
        // Its socket closes while the report is made.
        Some(_) => drop(observer),
    }
    session.remember_silent(now).await;
    let core = session.core();
    let is_in_vain = request.is_in_vain(core);
    for line in waiting {
        let line = if is_in_vain { line.quiet() } else { line };
        line.log();
    }
    let mut report = AnnounceReport::new(name, core, now, stopped, &background, told).await;
    if is_in_vain {
        report = report.in_vain();
    }
    Ok(Done::report(global, report)?.stopped(stopped))
}

/// Once the first frames are out, watches whether this host's kernel answers requests for the VIPs.
async fn observe(vips: &[PlacedVip], observer: &mut Option<Observer>) -> Infallible {
    sleep(FIRST_FRAMES).await;
    let start = async {
        let host = Kernel::connect()?.snapshot().await?;
        Observer::start(&host, vips)
    };
    let watched = match start.await {
        Ok(started) => observer.insert(started).watch().await,
        Err(error) => Err(error),
    };
    if let Err(error) = watched {
        debug!("cannot watch whether this host answers for the VIPs: {error}");
    }
    pending().await
}

/// The VIPs that this host's kernel does not answer for, with their interfaces, and why.
async fn silences(core: &Announcement, observer: Option<&Observer>) -> Vec<(Vip, String, Silence)> {
    let found = async {
        let kernel = Kernel::connect()?;
        let host = kernel.snapshot().await?;
        let mut silences = Vec::new();
        let ready = |claim: &&Claim| claim.state() == State::Ready;
        for claim in core.claims().iter().filter(ready) {
            let (link, vip) = (&claim.link, claim.vip);
            let by_setting = why_silent(&kernel, &host, link, vip).await?;
            let seen = || observer.and_then(|observer| observer.why_unanswered(link, vip));
            let silence = by_setting.or_else(seen);
            silences.extend(silence.map(|silence| (vip, link.name.clone(), silence)));
        }
        Ok::<_, kernel::Error>(silences)
    };
    found.await.unwrap_or_else(|error| {
        debug!("cannot tell whether this host answers for the VIPs: {error}");
        Vec::new()
    })
}

/// The MACs that answer for a VIP only because they answer for every address.
async fn proxies(core: &Announcement, request: &announce::Request) -> Vec<Mac> {
    let found = async {
        let kernel = Kernel::connect()?;
        let mut proxies = Vec::new();
        let contested =
            |claim: &&Claim| (1..=MOST_OTHER_OWNERS).contains(&claim.conflicts().count());
        for claim in core.claims().iter().filter(contested) {
            let rates = (request.pace.rate, request.pace.arp_rate);
            proxies.extend(check::proxies(&kernel, &request.all_vips, rates, claim).await?);
        }
        Ok::<_, Error>(proxies)
    };
    found.await.unwrap_or_else(|error| {
        debug!("cannot tell whether a proxy answers for the VIPs: {error}");
        Vec::new()
    })
}

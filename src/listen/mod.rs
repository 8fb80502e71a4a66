//! Obeying orders: what `vipherald listen` does with the datagrams of its sockets, those that systemd
//! passes (`socket_activation`) among them, and with an order (`execute`).

mod execute;
mod socket_activation;

use std::collections::BTreeMap;
use std::future::{self, Future};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{Level, debug, error, log, warn};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, sleep_until};
use vipherald_core::address::{InterfaceIndex, Mac, Vip};
use vipherald_core::keepalived;
use vipherald_core::log_limit::{LogLimiter, RateLimit};
use vipherald_core::order::admission::{Admission, Decision, Dropped};
use vipherald_core::order::message::{Answer, ORDER_LENGTH, Order, Outcome, Reason};
use vipherald_core::order::report::{Report as StragglerReport, acknowledgement};

use execute::{Context, Executed, OwnVip};

use crate::error::Error;
use crate::exit::Exit;
use crate::history::keeper::Keeper;
use crate::history::receipt::Fresh;
use crate::journal::{Kind, Notice};
use crate::order::{clock_difference, explain, sockets, wall_clock};
use crate::privileges::advice_on_call;
use crate::readable::{self, Readable};
use crate::report::{OrderReport, RefusedReport, Report};
use crate::{key_file, logging, moment, settings};

/// Datagrams to read before anything else gets its turn.
const AT_ONCE: usize = 256;
/// Orders to execute at the same time; the sender of one more tries again.
const MOST_AT_WORK: usize = 16;
/// Lines a minute about orders, and about refusals; the rest is counted.
const LINES: u32 = 6;
/// Hosts a minute that are named because an old owner reports them; the rest is counted.
const NAMED: u32 = 64;
/// A host is named once in this time, whichever of this host's addresses reports go to.
const NAMED_AGAIN: Duration = Duration::from_secs(60);
/// Refusals a second in answer to datagrams that somebody may have recorded and sent again.
const REFUSALS: u32 = 2;
/// How often the history counts refused datagrams: a flood of them must not crowd out its receipts.
const REFUSED_KEPT_EVERY: Duration = Duration::from_secs(600);
/// What is said of hosts that are not named.
const STILL_SEND: &str = "more hosts still send to the old owners of VIPs that are here";
const CARRIED_OUT: &str = "carried out";
/// Octets that the kernel queues for a socket, so that a flood does not crowd out genuine orders at once.
const QUEUE: usize = 4 << 20;

/// What `listen` shall do.
#[derive(Debug)]
pub struct Request {
    /// Where to listen, unless systemd passes sockets.
    pub bind: Option<SocketAddr>,
    /// How long to stay after the last datagram; `None`: for ever.
    pub idle: Option<Duration>,
    /// Which orders to obey.
    pub settings: settings::Orders,
    /// keepalived's configuration.
    pub keepalived_conf: PathBuf,
    /// How to read it.
    pub options: keepalived::Options,
    /// What was obeyed, and refused.
    pub(crate) history: Rc<Keeper>,
}

/// Obeys orders until none has come for a while, or until `stop`.
///
/// # Errors
/// Without a socket or a key, or if the kernel can't be asked.
pub async fn listen(request: Request, stop: impl Future<Output = Exit>) -> Result<Exit, Error> {
    let mut stop = pin!(stop);
    let sockets = sockets(request.bind)?;
    let by_systemd = request.bind.is_none();
    let idle = request.idle.unwrap_or(request.settings.idle);
    let error = match obey(request, sockets.clone(), stop.as_mut()).await {
        Err(error) if by_systemd => error,
        done => return done,
    };
    // If this process ended at once, systemd would start it again for each waiting datagram, up to its
    // limit, and then give up the socket.
    error!(
        "{error}; for {} s, all datagrams are discarded",
        idle.as_secs_f64()
    );
    let stopped = discard(&sockets, idle, stop).await?;
    Ok(stopped.unwrap_or(Exit::from(&error)))
}

async fn obey(
    request: Request,
    sockets: Vec<Rc<Readable<UdpSocket>>>,
    stop: Pin<&mut impl Future<Output = Exit>>,
) -> Result<Exit, Error> {
    let keys = key_file::of(&request.settings)?;
    let context = Context {
        settings: request.settings,
        keepalived_conf: request.keepalived_conf,
        options: request.options,
    };
    let mut listener = Listener {
        admission: Admission::new(keys, context.settings.window),
        context: Arc::new(context),
        sockets,
        idle: request.idle,
        last: Instant::now(),
        at_work: JoinSet::new(),
        dropped: LogLimiter::default(),
        done: LogLimiter::default(),
        lines: RateLimit::a_minute(LINES),
        refusals: RateLimit::a_second(REFUSALS),
        named: RateLimit::a_minute(NAMED),
        unnamed: LogLimiter::default(),
        named_at: BTreeMap::new(),
        history: request.history,
        refused: BTreeMap::new(),
        refused_kept: Instant::now(),
    };
    let exit = listener.run(stop).await;
    listener.tell_rest();
    exit
}

fn sockets(bind: Option<SocketAddr>) -> Result<Vec<Rc<Readable<UdpSocket>>>, Error> {
    let all = match bind {
        Some(address) => vec![bound(address).map_err(|source| Error::Bind { address, source })?],
        None => socket_activation::sockets().map_err(Error::Activation)?,
    };
    if all.is_empty() {
        return Err(Error::NoSocket);
    }
    let watch = |socket: UdpSocket| {
        socket.set_nonblocking(true)?;
        // More than net.core.rmem_max needs CAP_NET_ADMIN, as do the purges.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &QUEUE);
        sockets::tell_interfaces(&socket)?;
        Readable::new(socket).map(Rc::new)
    };
    all.into_iter()
        .map(watch)
        .collect::<io::Result<_>>()
        .map_err(Error::Activation)
}

fn bound(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::from(Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        None,
    )?);
    // Before any datagram can come in.
    sockets::tell_interfaces(&socket)?;
    SockRef::from(&socket).bind(&address.into())?;
    Ok(socket)
}

/// Discards what comes in, for as long as `idle`, or until `stop`, whose exit status it returns.
async fn discard(
    sockets: &[Rc<Readable<UdpSocket>>],
    idle: Duration,
    stop: impl Future<Output = Exit>,
) -> Result<Option<Exit>, Error> {
    let idle = sleep(idle);
    tokio::pin!(idle, stop);
    loop {
        for socket in sockets {
            for _ in 0..AT_ONCE {
                if socket.get().recv_from(&mut [0]).is_err() {
                    break;
                }
            }
        }
        tokio::select! {
            ready = readable(sockets) => ready.map_err(Error::Runtime)?,
            () = &mut idle => return Ok(None),
            exit = &mut stop => return Ok(Some(exit)),
        }
    }
}

async fn readable(sockets: &[Rc<Readable<UdpSocket>>]) -> io::Result<()> {
    future::poll_fn(|context| {
        readable::any(sockets.iter().map(|socket| socket.poll_readable(context)))
    })
    .await
}

struct Listener {
    admission: Admission,
    context: Arc<Context>,
    sockets: Vec<Rc<Readable<UdpSocket>>>,
    idle: Option<Duration>,
    /// When the last datagram came in.
    last: Instant,
    at_work: JoinSet<Work>,
    dropped: LogLimiter<&'static str>,
    /// What was done and not logged line by line.
    done: LogLimiter<&'static str>,
    lines: RateLimit,
    refusals: RateLimit,
    named: RateLimit,
    /// Those that were not.
    unnamed: LogLimiter<&'static str>,
    /// When a host was last named as one that still sends to a VIP's old owner.
    named_at: BTreeMap<(Vip, IpAddr, Mac), Instant>,
    history: Rc<Keeper>,
    /// Datagrams that were refused since the history last heard of it.
    refused: BTreeMap<&'static str, u64>,
    refused_kept: Instant,
}

/// What was done, and where the answer goes.
enum Work {
    Order {
        order: Order,
        executed: Executed,
        from: SocketAddr,
        socket: usize,
    },
    Report {
        report: StragglerReport,
        known: Option<OwnVip>,
        from: SocketAddr,
        socket: usize,
    },
}

impl Listener {
    async fn run(&mut self, mut stop: Pin<&mut impl Future<Output = Exit>>) -> Result<Exit, Error> {
        // Read once before waiting: systemd passes sockets that are already readable.
        let mut more = self.read();
        loop {
            self.tell_due();
            let now = Instant::now();
            if !more && self.is_idle(now) {
                return Ok(Exit::Done);
            }
            if more {
                tokio::select! {
                    biased;
                    exit = &mut stop => return Ok(exit),
                    () = yield_now() => {}
                }
                more = self.read();
                self.finish_done();
                continue;
            }
            let wake = self.next_deadline(now);
            tokio::select! {
                exit = &mut stop => return Ok(exit),
                ready = readable(&self.sockets) => {
                    ready.map_err(Error::Runtime)?;
                    more = self.read();
                }
                Some(work) = self.at_work.join_next() => {
                    if let Ok(work) = work {
                        self.finish(work);
                    }
                }
                () = sleep_until(wake.into()) => {}
            }
        }
    }

    /// Nothing in progress, and no remembered id that could still be replayed.
    fn is_idle(&mut self, now: Instant) -> bool {
        self.at_work.is_empty()
            && self.idle.is_some_and(|idle| now >= self.last + idle)
            && !self.admission.forget(wall_clock())
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let counts = [&self.dropped, &self.done, &self.unnamed];
        let told = counts.map(|counts| counts.due(now));
        let told = told.into_iter().flatten().min();
        // After the idle time, remembered orders are still to be forgotten, by the wall clock.
        let soon = now + Duration::from_secs(1);
        let end = self.idle.map(|idle| (self.last + idle).max(soon));
        let last = now + Duration::from_secs(60);
        told.into_iter().chain(end).fold(last, Instant::min)
    }

    /// Reads what has come in, up to a bound. Returns whether there may be more.
    fn read(&mut self) -> bool {
        let mut buffer = [0; ORDER_LENGTH.1 + 1];
        let mut more = false;
        for index in 0..self.sockets.len() {
            let socket = Rc::clone(&self.sockets[index]);
            for count in 1..=AT_ONCE {
                match sockets::receive(socket.get().as_fd(), &mut buffer) {
                    Ok((length, from, link)) => self.hear((index, from, link), &buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        let advice = advice_on_call(&error);
                        self.say(Instant::now(), "not received", || {
                            format!("cannot receive orders: {error}{advice}")
                        });
                        break;
                    }
                }
                more |= count == AT_ONCE;
            }
        }
        more
    }

    fn hear(
        &mut self,
        (socket, from, link): (usize, SocketAddr, Option<InterfaceIndex>),
        datagram: &[u8],
    ) {
        let now = Instant::now();
        self.last = now;
        let Some(link) = link else {
            // Not remembered: the sender sends it again.
            self.dropped.count("that came in before the start");
            return;
        };
        match self.admission.decide(wall_clock(), from, datagram) {
            Decision::Dropped(why) => {
                let why = match why {
                    Dropped::Size => "of a size that no order has",
                    Dropped::Version => "no orders of this version",
                    Dropped::Old => "of an older vipherald, which has to be updated",
                    Dropped::Unauthenticated => "signed with none of the keys",
                    Dropped::Malformed => "malformed",
                    Dropped::Replayed => "sent again",
                    Dropped::Unwelcome => "reports by another clock, or too many",
                };
                self.dropped.count(why);
                self.count_refused(why);
            }
            Decision::Again(to, answer) => self.send(socket, from, to, &answer),
            Decision::OutOfTime(order, skew) => {
                self.count_refused("refused for their time");
                self.say(now, "refused for their time", || {
                    format!(
                        "an order from {} is refused: its time is {} this host's clock; \
                         synchronise the clocks (NTP), unless somebody sent an old order again",
                        from.ip(),
                        clock_difference(skew)
                    )
                });
                self.refuse(now, socket, from, &order, Reason::Clock);
            }
            Decision::Crowded(order) => {
                self.count_refused("refused, being too many");
                self.say(now, "refused, being too many", || {
                    format!(
                        "an order from {} is refused: {}",
                        from.ip(),
                        explain(Reason::Busy)
                    )
                });
                self.refuse(now, socket, from, &order, Reason::Busy);
            }
            Decision::Report(report) if self.at_work.len() >= MOST_AT_WORK => {
                // Not acknowledged: its sender tries again.
                self.admission.not_taken(&report.id);
                debug!("a report from {from} is dropped: too much to do");
            }
            Decision::Report(report) => {
                let context = Arc::clone(&self.context);
                self.at_work.spawn(async move {
                    let known = context.take_report(&report, link).await;
                    Work::Report {
                        report,
                        known,
                        from,
                        socket,
                    }
                });
            }
            Decision::New(order) if self.at_work.len() >= MOST_AT_WORK => {
                let answer = Answer::refusal(&order, wall_clock(), Reason::Busy);
                let executed = Executed {
                    answer: Some(answer),
                    notes: Vec::new(),
                };
                self.finish_order(&order, executed, from, socket);
            }
            Decision::New(order) => {
                let context = Arc::clone(&self.context);
                self.at_work.spawn(async move {
                    let executed = context.execute(&order, link).await;
                    Work::Order {
                        order,
                        executed,
                        from,
                        socket,
                    }
                });
            }
        }
    }

    fn refuse(
        &mut self,
        now: Instant,
        socket: usize,
        from: SocketAddr,
        order: &Order,
        reason: Reason,
    ) {
        // Anybody who recorded an order can provoke refusals, to any forged source address.
        if self.refusals.take(now) {
            let answer = Answer::refusal(order, wall_clock(), reason);
            let answer = answer.to_bytes(self.admission.keys());
            self.send(socket, from, order.to, &answer);
        }
    }

    fn finish_done(&mut self) {
        while let Some(Ok(work)) = self.at_work.try_join_next() {
            self.finish(work);
        }
    }

    fn finish(&mut self, work: Work) {
        match work {
            Work::Order {
                order,
                executed,
                from,
                socket,
            } => self.finish_order(&order, executed, from, socket),
            Work::Report {
                report,
                known,
                from,
                socket,
            } => self.finish_report(&report, known.as_ref(), from, socket),
        }
    }

    /// Names who still sends to the sender of a report, and acknowledges that.
    fn finish_report(
        &mut self,
        report: &StragglerReport,
        known: Option<&OwnVip>,
        from: SocketAddr,
        socket: usize,
    ) {
        let Some(own) = known else {
            self.dropped.count("for other hosts");
            return;
        };
        let (vip, old) = (report.vip, from.ip().to_canonical());
        if let OwnVip::Here(interfaces) = own {
            let now = Instant::now();
            self.named_at
                .retain(|_, at| now.duration_since(*at) < NAMED_AGAIN);
            for (ip, mac) in &report.stragglers {
                let host = (vip, *ip, *mac);
                if self.named_at.contains_key(&host) {
                    continue;
                }
                if !self.named.take(now) {
                    self.unnamed.count(STILL_SEND);
                    continue;
                }
                self.named_at.insert(host, now);
                let notice = Notice::new(Kind::StillSends)
                    .with("VIP", &vip)
                    .with_each("INTERFACE", interfaces)
                    .with("PEER", ip)
                    .with("MAC", mac);
                let text =
                    format!("{ip} ({mac}) still sends to {vip} at {old}, which had it before");
                logging::say(Level::Warn, &text, Some(&notice));
            }
        }
        let bytes = acknowledgement(wall_clock(), report.id, self.admission.keys());
        self.send(socket, from, report.to, &bytes);
        self.admission.answered(&report.id, bytes);
    }

    fn finish_order(&mut self, order: &Order, executed: Executed, from: SocketAddr, socket: usize) {
        for note in executed.notes {
            self.say(Instant::now(), "with trouble", || note);
        }
        let Some(answer) = executed.answer else {
            self.dropped.count("for other hosts");
            return;
        };
        let obeyed = OrderReport::obeyed(order, &answer.done, from.ip());
        if obeyed.is_worth_a_receipt() {
            self.history.keep(vec![Fresh::of(obeyed, moment::now())]);
        }
        let about = match order.instance.as_str() {
            "" => String::new(),
            instance => format!("{instance}: "),
        };
        for done in &answer.done {
            let (vip, from, on) = (done.vip, from.ip(), &done.interface);
            let was = done.was.map_or("no MAC".to_owned(), |mac| mac.to_string());
            let (kind, text) = match done.outcome {
                Outcome::Purged => {
                    let found = match done.now {
                        Some(mac) => format!("is {mac} now"),
                        None => "nobody has answered for it yet".to_owned(),
                    };
                    let text = format!("purged on {on} as {from} ordered: was {was}, {found}");
                    (CARRIED_OUT, format!("{vip} {text}"))
                }
                Outcome::Kept(reason) => {
                    let text = format!("kept on {on} as {was}, against an order from {from}");
                    ("not carried out", format!("{vip} {text}: {}", explain(reason)))
                }
                // The notes have logged these.
                Outcome::Refused(Reason::HeldThere | Reason::MaybeAlive | Reason::Failed)
                | Outcome::Released
                // And here there was nothing to do.
                | Outcome::Right
                | Outcome::Absent => continue,
                Outcome::Refused(reason) => {
                    let text = format!("an order from {from} is refused: {}", explain(reason));
                    ("refused", format!("{vip}: {text}"))
                }
            };
            if kind == CARRIED_OUT {
                let notice = Notice::new(Kind::OrderObeyed)
                    .with("VIP", &vip)
                    .with("INTERFACE", on)
                    .with("PEER", &from.to_canonical())
                    .with_each("MAC", done.was)
                    .with("INSTANCE", &order.instance);
                self.say_of(Instant::now(), kind, Some(&notice), || {
                    about.clone() + &text
                });
            } else {
                self.say(Instant::now(), kind, || about.clone() + &text);
            }
        }
        let bytes = answer.to_bytes(self.admission.keys());
        self.send(socket, from, order.to, &bytes);
        self.admission.answered(&order.id, bytes);
    }

    /// Sends an answer from the address that the order was sent to: the sender accepts no other.
    fn send(&self, socket: usize, to: SocketAddr, from: IpAddr, datagram: &[u8]) {
        sockets::send_from(self.sockets[socket].get().as_fd(), to, from, datagram);
    }

    fn say(&mut self, now: Instant, kind: &'static str, line: impl FnOnce() -> String) {
        self.say_of(now, kind, None, line);
    }

    fn say_of(
        &mut self,
        now: Instant,
        kind: &'static str,
        notice: Option<&Notice>,
        line: impl FnOnce() -> String,
    ) {
        if self.lines.take(now) {
            let level = if kind == CARRIED_OUT {
                Level::Info
            } else {
                Level::Warn
            };
            logging::say(level, &line(), notice);
        } else {
            self.done.count(kind);
        }
    }

    fn count_refused(&mut self, why: &'static str) {
        *self.refused.entry(why).or_default() += 1;
    }

    /// Keeps the number of refusals, not one by one: anybody can cause them.
    fn keep_refused(&mut self, now: Instant) {
        self.refused_kept = now;
        let refused = std::mem::take(&mut self.refused);
        if !refused.is_empty() {
            let report = RefusedReport::new(refused);
            self.history.keep(vec![Fresh::of(report, moment::now())]);
        }
    }

    fn tell_due(&mut self) {
        let now = Instant::now();
        if now >= self.refused_kept + REFUSED_KEPT_EVERY {
            self.keep_refused(now);
        }
        let counts = [&mut self.dropped, &mut self.done, &mut self.unnamed];
        let counts = counts.map(|counts| counts.take_due(now).unwrap_or_default());
        tell(Level::Warn, &counts);
    }

    fn tell_rest(&mut self) {
        self.keep_refused(Instant::now());
        let counts = [&mut self.dropped, &mut self.done, &mut self.unnamed];
        tell(Level::Info, &counts.map(LogLimiter::take));
    }
}

fn tell(further: Level, [dropped, done, unnamed]: &[BTreeMap<&str, u64>; 3]) {
    if !dropped.is_empty() {
        warn!("dropped datagrams: {}", numbers(dropped));
    }
    if !done.is_empty() {
        log!(further, "further orders: {}", numbers(done));
    }
    if !unnamed.is_empty() {
        warn!("{}", numbers(unnamed));
    }
}

fn numbers(counts: &BTreeMap<&str, u64>) -> String {
    let each = counts.iter().map(|(what, count)| format!("{count} {what}"));
    each.collect::<Vec<_>>().join(", ")
}

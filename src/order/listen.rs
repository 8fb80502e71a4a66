//! The receiver: what `vipherald listen` does with the datagrams of its sockets.

use std::collections::BTreeMap;
use std::future::{self, Future};
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use log::{Level, error, info, log, warn};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Socket, Type};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, sleep_until};
use vipherald_core::keepalived;
use vipherald_core::log_limit::{LogLimiter, RateLimit};
use vipherald_core::order::Keys;
use vipherald_core::order::admission::{Admission, Decision, Dropped};
use vipherald_core::order::message::{Answer, ORDER_LENGTH, Order, Outcome, Reason};

use super::execute::{Carried, Context};
use super::{socket_activation, sockets, wall_clock};
use crate::error::Error;
use crate::exit::Exit;
use crate::readable::Readable;
use crate::{key_file, settings};

/// Datagrams that are read before anything else has its turn.
const AT_ONCE: usize = 256;
/// Orders that are carried out at once; who sent one more asks again.
const MOST_AT_WORK: usize = 16;
/// Lines a minute about orders, and about refusals: what is beyond is a number.
const LINES: u32 = 6;
/// Refusals a minute that may be answers to datagrams which somebody recorded and sends again.
const REFUSALS: u32 = 120;
const CARRIED_OUT: &str = "carried out";
/// Octets that the kernel keeps for a socket: a flood must not push genuine orders out at once.
const QUEUE: usize = 4 << 20;

/// What `listen` is asked for.
#[derive(Debug)]
pub struct Request {
    /// Where to listen, if systemd does not say.
    pub bind: Option<SocketAddr>,
    /// How long to stay after the last datagram; `None`: for good.
    pub idle: Option<Duration>,
    /// How orders are obeyed.
    pub settings: settings::Orders,
    /// keepalived's configuration.
    pub keepalived_conf: PathBuf,
    /// How to read it.
    pub options: keepalived::Options,
}

/// Carries out orders until none has come for a while, or until `stop`.
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
    // Were this process to end at once, systemd would start it again for each datagram that waits,
    // until its limit, and then give the socket up.
    error!(
        "{error}; for {} s, what comes in is thrown away",
        idle.as_secs_f64()
    );
    let stopped = deafen(&sockets, idle, stop).await?;
    Ok(stopped.unwrap_or(error.exit()))
}

async fn obey(
    request: Request,
    sockets: Vec<Rc<Readable<UdpSocket>>>,
    stop: Pin<&mut impl Future<Output = Exit>>,
) -> Result<Exit, Error> {
    let keys = keys(&request.settings)?;
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
        refusals: RateLimit::a_minute(REFUSALS),
    };
    let exit = listener.run(stop).await;
    listener.tell_rest();
    exit
}

fn keys(settings: &settings::Orders) -> Result<Keys, Error> {
    if settings.key_files.is_empty() {
        return Err(Error::NoKey);
    }
    Ok(key_file::read(
        &settings.key_files,
        sockets::credentials().as_deref(),
    )?)
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
        Readable::new(socket).map(Rc::new)
    };
    all.into_iter()
        .map(watch)
        .collect::<io::Result<_>>()
        .map_err(Error::Activation)
}

fn bound(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Throws away what comes in, for as long as `idle`, or until `stop`. Returns what that gave.
async fn deafen(
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
        let mut any = Poll::Pending;
        for socket in sockets {
            if let Poll::Ready(ready) = socket.poll_readable(context) {
                any = Poll::Ready(ready);
            }
        }
        any
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
    /// What was done and not told one by one.
    done: LogLimiter<&'static str>,
    lines: RateLimit,
    refusals: RateLimit,
}

/// An order that was carried out, and where its answer goes.
struct Work {
    order: Order,
    carried: Carried,
    from: SocketAddr,
    socket: usize,
}

impl Listener {
    async fn run(&mut self, mut stop: Pin<&mut impl Future<Output = Exit>>) -> Result<Exit, Error> {
        // Even a socket that was readable before this process began is read once.
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

    /// Whether nothing more is to be done. Orders that could be sent again are not forgotten.
    fn is_idle(&mut self, now: Instant) -> bool {
        self.at_work.is_empty()
            && self.idle.is_some_and(|idle| now >= self.last + idle)
            && !self.admission.forget(wall_clock())
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let told = [self.dropped.due(now), self.done.due(now)];
        let told = told.into_iter().flatten().min();
        // Past the idle time there are orders left to be forgotten, by the wall clock.
        let soon = now + Duration::from_secs(1);
        let end = self.idle.map(|idle| (self.last + idle).max(soon));
        let last = now + Duration::from_secs(60);
        told.into_iter().chain(end).fold(last, Instant::min)
    }

    /// Reads what has come in, up to a bound. Whether there may be more.
    fn read(&mut self) -> bool {
        let mut buffer = [0; ORDER_LENGTH.1 + 1];
        let mut more = false;
        for index in 0..self.sockets.len() {
            let socket = Rc::clone(&self.sockets[index]);
            for count in 1..=AT_ONCE {
                match socket.get().recv_from(&mut buffer) {
                    Ok((length, from)) => self.hear(index, from, &buffer[..length]),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
                more |= count == AT_ONCE;
            }
        }
        more
    }

    fn hear(&mut self, socket: usize, from: SocketAddr, datagram: &[u8]) {
        let now = Instant::now();
        self.last = now;
        match self.admission.decide(wall_clock(), from, datagram) {
            Decision::Dropped(why) => self.dropped.count(match why {
                Dropped::Size => "of a size that no order has",
                Dropped::Version => "no orders of this version",
                Dropped::Unauthenticated => "signed with none of the keys",
                Dropped::Malformed => "malformed",
                Dropped::Replayed => "sent again",
            }),
            Decision::Again(to, answer) => self.send(socket, from, to, &answer),
            Decision::OutOfTime(order, skew) => {
                #[expect(clippy::cast_precision_loss, reason = "for people")]
                let seconds = skew.unsigned_abs() as f64 / 1000.0;
                let way = if skew < 0 { "behind" } else { "ahead of" };
                self.say(now, "refused for their time", || {
                    format!(
                        "an order from {} is refused: its time is {seconds:.1} s {way} this \
                         host's clock; the two clocks have to agree, or it is an old one sent again",
                        from.ip()
                    )
                });
                self.refuse(now, socket, from, &order, Reason::Clock);
            }
            Decision::Crowded(order) => {
                self.say(now, "refused, being too many", || {
                    format!(
                        "an order from {} is refused: there were too many",
                        from.ip()
                    )
                });
                self.refuse(now, socket, from, &order, Reason::Busy);
            }
            Decision::New(order) if self.at_work.len() >= MOST_AT_WORK => {
                let answer = Answer::refusal(&order, wall_clock(), Reason::Busy);
                self.finish(Work {
                    order,
                    carried: Carried {
                        answer: Some(answer),
                        notes: Vec::new(),
                    },
                    from,
                    socket,
                });
            }
            Decision::New(order) => {
                let context = Arc::clone(&self.context);
                self.at_work.spawn(async move {
                    let carried = context.carry_out(&order).await;
                    Work {
                        order,
                        carried,
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
        // Whoever recorded an order can have it refused, in the name of whom they like.
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
        for note in work.carried.notes {
            self.say(Instant::now(), "with trouble", || note);
        }
        let Some(answer) = work.carried.answer else {
            self.dropped.count("for other hosts");
            return;
        };
        for done in &answer.done {
            let about = if work.order.instance.is_empty() {
                String::new()
            } else {
                format!("{}: ", work.order.instance)
            };
            let (vip, from, on) = (done.vip, work.from.ip(), &done.interface);
            let was = done.was.map_or("no MAC".to_owned(), |mac| mac.to_string());
            let now = Instant::now();
            match done.outcome {
                Outcome::Purged => self.say(now, CARRIED_OUT, || {
                    let found = match done.now {
                        Some(mac) => format!("is {mac} now"),
                        None => "nobody has answered for it yet".to_owned(),
                    };
                    format!("{about}{vip} purged on {on} as {from} ordered: was {was}, {found}")
                }),
                Outcome::Kept(reason) => self.say(now, "not carried out", || {
                    let advice = match reason {
                        Reason::Permanent => "PERMANENT, and orders.permanent is not set",
                        _ => "NOARP, a proxy's, or externally learned",
                    };
                    format!("{about}{vip} kept on {on} as {was}, though {from} ordered: {advice}")
                }),
                // Those have been told of.
                Outcome::Refused(Reason::HeldThere | Reason::MaybeAlive | Reason::Failed)
                | Outcome::Released
                // And there nothing was to be done.
                | Outcome::Right
                | Outcome::Absent => {}
                Outcome::Refused(reason) => self.say(now, "refused", || {
                    let why = match reason {
                        Reason::Gateway => {
                            "it is a gateway of this host, not named in orders.allow"
                        }
                        Reason::NotAllowed => "neither keepalived.conf nor orders.allow has it",
                        _ => "there are too many orders",
                    };
                    format!("{about}{vip}: an order from {from} is refused: {why}")
                }),
            }
        }
        let bytes = answer.to_bytes(self.admission.keys());
        self.send(work.socket, work.from, work.order.to, &bytes);
        self.admission.answered(&work.order.id, bytes);
    }

    /// Sends an answer, from the address that the order was sent to: its sender hears no other.
    fn send(&self, socket: usize, to: SocketAddr, from: IpAddr, datagram: &[u8]) {
        sockets::send_from(self.sockets[socket].get().as_fd(), to, from, datagram);
    }

    fn say(&mut self, now: Instant, kind: &'static str, line: impl FnOnce() -> String) {
        if self.lines.take(now) {
            let level = if kind == CARRIED_OUT {
                Level::Info
            } else {
                Level::Warn
            };
            log!(level, "{}", line());
        } else {
            self.done.count(kind);
        }
    }

    fn tell_due(&mut self) {
        let now = Instant::now();
        if let Some(dropped) = self.dropped.take_due(now) {
            warn!("datagrams that were dropped: {}", numbers(&dropped));
        }
        if let Some(done) = self.done.take_due(now) {
            warn!("further orders: {}", numbers(&done));
        }
    }

    fn tell_rest(&mut self) {
        let (dropped, done) = (self.dropped.take(), self.done.take());
        if !dropped.is_empty() {
            warn!("datagrams that were dropped: {}", numbers(&dropped));
        }
        if !done.is_empty() {
            info!("further orders: {}", numbers(&done));
        }
    }
}

fn numbers(counts: &BTreeMap<&'static str, u64>) -> String {
    let each = counts.iter().map(|(what, count)| format!("{count} {what}"));
    each.collect::<Vec<_>>().join(", ")
}

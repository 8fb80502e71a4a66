//! The commands: each reads like its sentence in the manual.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};

use crate::address::Vip;
use crate::announce::session::{self, Session};
use crate::announce::{Manner, Pace};
use crate::cli::{
    Announce, Check, Cli, Command, Fifo, Global, Keygen, Listen, Notify, Order, Purge, Release,
    Show, Which, Whose,
};
use crate::error::Error;
use crate::event::{Call, Event, Subject};
use crate::exit::{Exit, Plugin};
use crate::fifo::Stop;
use crate::keepalived::{self, Configuration, Instance};
use crate::kernel::Kernel;
use crate::report::{
    AnnounceReport, CheckReport, Checked, FailureReport, OrderReport, PurgeReport, ReleaseReport,
    Report, ShowReport, plugin_line,
};
use crate::settings::Settings;
use crate::takeover::Age;
use crate::termination::termination;
use crate::{check, fifo, order, orphan, purge};

/// How long `order` asks for an answer.
const ORDERED_WITHIN: Duration = Duration::from_secs(5);

/// Carries out a command line, and tells what came of it.
///
/// # Errors
/// If it could not be carried out; with `--json` that has been told on stdout, too.
pub async fn run(cli: &Cli, began: Instant) -> Result<Exit, Error> {
    let name = match &cli.command {
        Command::Announce(_) => "announce",
        Command::Purge(_) => "purge",
        Command::Check(_) => "check",
        Command::Notify(_) => "notify",
        Command::Fifo(_) => "fifo",
        Command::Show(_) => "show",
        Command::Listen(_) => "listen",
        Command::Order(_) => "order",
        Command::Release(_) => "release",
        Command::Keygen(_) => "keygen",
    };
    let done = carry_out(cli, began).await;
    if let (Command::Check(args), Err(error)) = (&cli.command, &done)
        && args.own.nagios
    {
        write(&plugin_line(Plugin::Unknown, &error.to_string(), ""))?;
        return Ok(Plugin::Unknown.exit());
    }
    if let (true, Err(error)) = (cli.global.json, &done) {
        print(&cli.global, &FailureReport::new(name, error))?;
    }
    done
}

async fn carry_out(cli: &Cli, began: Instant) -> Result<Exit, Error> {
    let global = &cli.global;
    let settings = Settings::read(global.config.as_deref())?;
    match &cli.command {
        Command::Announce(args) => announce(&args.own, &settings, global, began).await,
        Command::Purge(args) => purge(&args.own, global).await,
        Command::Check(args) => check(&args.own, &settings, global, began).await,
        Command::Notify(args) => notify(&args.own, &settings, global, began).await,
        Command::Fifo(args) => fifo(&args.own, settings, global).await,
        Command::Show(args) => show(&args.own, global),
        Command::Listen(args) => listen(&args.own, settings, global).await,
        Command::Order(args) => order(&args.own, &settings, global).await,
        Command::Release(args) => release(&args.own, &settings, global).await,
        Command::Keygen(args) => keygen(&args.own),
    }
}

async fn announce(
    args: &Announce,
    settings: &Settings,
    global: &Global,
    began: Instant,
) -> Result<Exit, Error> {
    let target = Target::asked_for(&args.whose, global)?;
    let mut order = target.to_announce(settings);
    order.interface.clone_from(&args.interface);
    order.peers.extend(&args.peers);
    order.confirm = args.confirm.unwrap_or(order.confirm);
    order.pace = Pace {
        rate: args.rate.unwrap_or(order.pace.rate),
        wait: args.wait.unwrap_or(order.pace.wait),
        timeout: args.timeout.unwrap_or(order.pace.timeout),
    };
    carry_out_announcement(&target, &order, global, began, Box::pin(termination())).await
}

async fn purge(args: &Purge, global: &Global) -> Result<Exit, Error> {
    let target = Target::asked_for(&args.whose, global)?;
    let order = purge::Order {
        interface: args.interface.clone(),
        permanent: args.permanent,
        ..target.to_purge(global)
    };
    carry_out_purge(&target, &order, global).await
}

async fn check(
    args: &Check,
    settings: &Settings,
    global: &Global,
    began: Instant,
) -> Result<Exit, Error> {
    let target = Target::to_look_at(&args.which, global)?;
    let order = check::Order {
        interface: args.interface.clone(),
        wait: args.wait.unwrap_or(check::WAIT),
        ..target.to_check(settings)
    };
    if order.vips.is_empty() {
        return Err(Error::NothingToCheck(global.keepalived_conf().to_owned()));
    }
    let kernel = Kernel::connect()?;
    if global.dry_run {
        write(&check::plan(&kernel, &order).await?)?;
        return Ok(Exit::Done);
    }
    let found = check::look(&kernel, &order).await?;
    let checked = if args.fix {
        fix(&kernel, &target, &order, found, settings, args.permanent).await?
    } else {
        found.into_iter().map(Checked::found).collect()
    };
    let report = CheckReport::new(target.name.as_deref(), checked, began.elapsed());
    if args.nagios {
        write(&report.plugin_line())?;
        return Ok(report.plugin().exit());
    }
    let wants_colour = std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let report = report.in_colour(io::stdout().is_terminal() && wants_colour);
    print(global, &report)?;
    Ok(report.exit())
}

/// Mends what was found, and looks again at what was mended.
async fn fix(
    kernel: &Kernel,
    target: &Target,
    order: &check::Order,
    found: Vec<check::Finding>,
    settings: &Settings,
    permanent: bool,
) -> Result<Vec<Checked>, Error> {
    let mut checked: Vec<_> = found.into_iter().map(Checked::found).collect();
    let mut to_announce = Vec::new();
    for one in &mut checked {
        if one.finding.can_be_announced() {
            to_announce.push(one.finding.vip);
            one.mended = Some(check::Mended::Announced);
        } else {
            one.mended = check::mend(kernel, &one.finding, permanent).await?;
        }
    }
    if !to_announce.is_empty() {
        let announcement = session::Order {
            vips: to_announce,
            ..target.to_announce(settings)
        };
        let mut session = Session::prepare(&announcement, Instant::now()).await?;
        session.run(std::future::pending::<()>()).await?;
    }
    let changed = |one: &&Checked| one.mended.as_ref().is_some_and(check::Mended::is_a_change);
    let again = check::Order {
        vips: checked
            .iter()
            .filter(changed)
            .map(|one| one.finding.vip)
            .collect(),
        ..order.clone()
    };
    for finding in check::look(kernel, &again).await? {
        let same = |one: &&mut Checked| {
            one.finding.vip == finding.vip && one.finding.interface == finding.interface
        };
        if let Some(one) = checked.iter_mut().find(same) {
            one.before = Some(one.finding.verdict);
            one.finding = finding;
        }
    }
    Ok(checked)
}

async fn notify(
    args: &Notify,
    settings: &Settings,
    global: &Global,
    began: Instant,
) -> Result<Exit, Error> {
    let event = Event {
        of: args.of,
        name: args.name.clone(),
        state: args.state.clone(),
    };
    if event.calls_for().is_none() {
        debug!("{}: nothing to do for {}", event.name, event.state);
        return Ok(Exit::Done);
    }
    let configuration = read_configuration(global)?;
    answer(
        &event,
        &configuration,
        settings,
        global,
        began,
        Box::pin(termination()),
    )
    .await
}

async fn fifo(args: &Fifo, settings: Settings, global: &Global) -> Result<Exit, Error> {
    // keepalived starts its FIFO script anew at every reload, so that this is what it runs with.
    let context = Rc::new((read_configuration(global)?, settings, global.clone()));
    let answer_event = move |event: Event, newer| {
        let context = Rc::clone(&context);
        async move {
            let (configuration, settings, global) = &*context;
            let began = Instant::now();
            let done = answer(&event, configuration, settings, global, began, newer).await;
            if let Err(error) = done {
                error!("{}: {error}", event.name);
            }
        }
    };
    fifo::follow(&args.path, Box::pin(termination()), answer_event).await
}

fn show(args: &Show, global: &Global) -> Result<Exit, Error> {
    let configuration = read_configuration(global)?;
    let report = match &args.instance {
        Some(name) => ShowReport::instance(configuration.instance(name)?),
        None => {
            for problem in configuration.warnings() {
                warn!("{problem}");
            }
            ShowReport::all(&configuration)
        }
    };
    print(global, &report)?;
    Ok(Exit::Done)
}

async fn listen(args: &Listen, settings: Settings, global: &Global) -> Result<Exit, Error> {
    let by_default = args.bind.is_none().then_some(settings.orders.idle);
    let request = order::listen::Request {
        bind: args.bind,
        idle: args.idle.or(by_default),
        settings: settings.orders,
        keepalived_conf: global.keepalived_conf().to_owned(),
        options: options(global),
    };
    order::listen::listen(request, termination()).await
}

async fn order(args: &Order, settings: &Settings, global: &Global) -> Result<Exit, Error> {
    let target = Target::asked_for(&args.whose, global)?;
    let name = target.name.as_deref();
    let peers = if args.peers.is_empty() {
        target.peers.clone()
    } else {
        args.peers.clone()
    };
    if peers.is_empty() {
        return Err(Error::NoPeer);
    }
    let request = order::send::Request {
        vips: target.vips.clone(),
        peers,
        mac: args.mac,
        instance: target.name.clone().unwrap_or_default(),
        timeout: args.timeout.unwrap_or(ORDERED_WITHIN),
    };
    let mut ordered = order::send::plan(&request).await?;
    if global.dry_run {
        print(global, &OrderReport::new(name, &ordered, true))?;
        return Ok(Exit::Done);
    }
    let sent = order::send::send(&request, &settings.orders, &mut ordered, termination());
    let stopped = sent.await?;
    let report = OrderReport::new(name, &ordered, false);
    deliver(global, &report)?;
    Ok(stopped.unwrap_or(report.exit()))
}

async fn release(args: &Release, settings: &Settings, global: &Global) -> Result<Exit, Error> {
    let configured = orphan::configured_vips(&read_configuration(global)?);
    let vips = if args.all {
        let all = configured.iter().copied();
        all.filter_map(|ip| Vip::try_from(ip).ok()).collect()
    } else {
        args.vips.clone()
    };
    let kernel = Kernel::connect()?;
    let pid_files = &settings.orders.pid_files;
    let held = orphan::release(&kernel, &vips, &configured, pid_files, global.dry_run).await?;
    let report = ReleaseReport::new(&held, global.dry_run);
    if global.dry_run {
        print(global, &report)?;
    } else {
        deliver(global, &report)?;
    }
    Ok(report.exit())
}

fn keygen(args: &Keygen) -> Result<Exit, Error> {
    order::key::generate(&args.file)?;
    info!(
        "{} written: copy it to every host, for root alone",
        args.file.display()
    );
    Ok(Exit::Done)
}

/// Does what an event calls for. `stop` ends an announcement.
async fn answer(
    event: &Event,
    configuration: &Configuration,
    settings: &Settings,
    global: &Global,
    began: Instant,
    stop: Stop,
) -> Result<Exit, Error> {
    let target = Target::of_event(event, configuration)?;
    match event.calls_for() {
        Some(Call::Announce) => {
            let order = target.to_announce(settings);
            carry_out_announcement(&target, &order, global, began, stop).await
        }
        Some(Call::Purge) => carry_out_purge(&target, &target.to_purge(global), global).await,
        None => Ok(Exit::Done),
    }
}

async fn carry_out_announcement(
    target: &Target,
    order: &session::Order,
    global: &Global,
    began: Instant,
    stop: Stop,
) -> Result<Exit, Error> {
    let mut session = Session::prepare(order, began).await?;
    let name = target.name.as_deref();
    if global.dry_run {
        print(global, &AnnounceReport::planned(name, session.core()))?;
        return Ok(Exit::Done);
    }
    let stopped = session.run(stop).await?;
    let report = AnnounceReport::new(name, session.core(), Instant::now());
    deliver(global, &report)?;
    Ok(stopped.unwrap_or(report.exit()))
}

async fn carry_out_purge(
    target: &Target,
    order: &purge::Order,
    global: &Global,
) -> Result<Exit, Error> {
    let purged = purge::purge(&Kernel::connect()?, order).await?;
    let report = PurgeReport::new(target.name.as_deref(), order, &purged);
    if global.dry_run {
        print(global, &report)?;
    } else {
        deliver(global, &report)?;
    }
    Ok(report.exit())
}

/// The VIPs that a command is about.
#[derive(Clone, Debug)]
struct Target {
    /// The instance or group they are of, if keepalived.conf named them.
    name: Option<String>,
    vips: Vec<Vip>,
    /// Its unicast peers.
    peers: Vec<IpAddr>,
}

impl Target {
    fn asked_for(whose: &Whose, global: &Global) -> Result<Self, Error> {
        match &whose.instance {
            Some(name) => Ok(Self::of_instance(
                read_configuration(global)?.instance(name)?,
            )),
            None => Ok(Self {
                name: None,
                vips: whose.vips.clone(),
                peers: Vec::new(),
            }),
        }
    }

    fn to_look_at(which: &Which, global: &Global) -> Result<Self, Error> {
        if !which.all {
            let whose = Whose {
                vips: which.vips.clone(),
                instance: which.instance.clone(),
            };
            return Self::asked_for(&whose, global);
        }
        let configuration = read_configuration(global)?;
        for problem in configuration.warnings() {
            warn!("{problem}");
        }
        let all = configuration.instances().iter().map(Self::of_instance);
        let (vips, peers): (Vec<_>, Vec<_>) = all.map(|one| (one.vips, one.peers)).unzip();
        Ok(Self {
            name: Some("all".to_owned()),
            vips: vips.concat(),
            peers: peers.concat(),
        })
    }

    fn of_event(event: &Event, configuration: &Configuration) -> Result<Self, Error> {
        match event.of {
            Subject::Instance => Ok(Self::of_instance(configuration.instance(&event.name)?)),
            Subject::Group => {
                let group = configuration.group(&event.name)?;
                let mut target = Self {
                    name: Some(group.name.clone()),
                    vips: Vec::new(),
                    peers: Vec::new(),
                };
                for member in &group.instances {
                    let member = Self::of_instance(configuration.instance(member)?);
                    target.vips.extend(member.vips);
                    target.peers.extend(member.peers);
                }
                Ok(target)
            }
        }
    }

    fn of_instance(instance: &Instance) -> Self {
        let vips = instance.addresses().filter_map(|configured| {
            Vip::try_from(configured.address)
                .inspect_err(|why| debug!("{}: passed over: {why}", instance.name))
                .ok()
        });
        Self {
            name: Some(instance.name.clone()),
            vips: vips.collect(),
            peers: instance.peers.clone(),
        }
    }

    fn to_announce(&self, settings: &Settings) -> session::Order {
        session::Order {
            manner: Manner::Announce,
            vips: self.vips.clone(),
            interface: None,
            peers: [self.peers.as_slice(), &settings.peers].concat(),
            confirm: settings.confirm,
            pace: Pace {
                rate: settings.rate,
                wait: settings.wait,
                timeout: settings.timeout,
            },
            age: Age::now(),
            configured: self.name.is_some(),
            orders: settings.orders.clone(),
            instance: self.name.clone().unwrap_or_default(),
        }
    }

    fn to_check(&self, settings: &Settings) -> check::Order {
        let mut vips = self.vips.clone();
        let mut seen = BTreeSet::new();
        vips.retain(|vip| seen.insert(*vip));
        check::Order {
            vips,
            interface: None,
            peers: [self.peers.as_slice(), &settings.peers].concat(),
            confirm: settings.confirm,
            rate: settings.rate,
            wait: check::WAIT,
            configured: self.name.is_some(),
        }
    }

    fn to_purge(&self, global: &Global) -> purge::Order {
        purge::Order {
            vips: self.vips.clone(),
            interface: None,
            permanent: false,
            right: None,
            dry_run: global.dry_run,
        }
    }
}

fn read_configuration(global: &Global) -> Result<Configuration, Error> {
    Ok(keepalived::read(
        global.keepalived_conf(),
        &options(global),
    )?)
}

fn options(global: &Global) -> keepalived::Options {
    keepalived::Options {
        config_id: global.config_id.clone(),
    }
}

/// Tells what happened: always to the log, with `--json` also on stdout.
fn deliver(global: &Global, report: &impl Report) -> Result<(), Error> {
    report.log();
    if global.json {
        print(global, report)?;
    }
    Ok(())
}

fn print(global: &Global, report: &impl Report) -> Result<(), Error> {
    let text = if global.json {
        serde_json::to_string(report).map_err(|error| Error::Stdout(error.into()))? + "\n"
    } else {
        report.text()
    };
    write(&text)
}

fn write(text: &str) -> Result<(), Error> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::Stdout)
}

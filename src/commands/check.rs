//! `check`: find out who answers for VIPs, and whether everyone follows.

use std::io::{self, IsTerminal};
use std::time::Instant;

use super::output::Done;
use super::target::Target;
use crate::announce::Session;
use crate::cli::{Check, Global};
use crate::error::Error;
use crate::exit::Exit;
use crate::kernel::Kernel;
use crate::report::{CheckReport, Checked};
use crate::settings::Settings;
use crate::{announce, check};

pub(super) async fn check(
    args: &Check,
    settings: &Settings,
    global: &Global,
    began: Instant,
) -> Result<Done, Error> {
    let target = Target::to_look_at(&args.which, global)?;
    let mut request = check::Request {
        interface: None,
        wait: args.wait.unwrap_or(check::WAIT),
        ..target.to_check(settings)
    };
    if request.vips.is_empty() {
        return Err(Error::NoVip(global.keepalived_conf().to_owned()));
    }
    let kernel = Kernel::connect()?;
    if let Some(name) = &args.interface {
        let link = kernel.link_named(name).await?;
        let link = link.ok_or_else(|| Error::NoSuchInterface(name.clone()))?;
        request.interface = Some(link.name);
    }
    if global.dry_run {
        let (exit, stdout) = (Exit::Done, check::plan(&kernel, &request).await?);
        return Ok(Done {
            stdout,
            ..Done::silent(exit)
        });
    }
    let found = check::look(&kernel, &request).await?;
    let checked = if args.fix {
        fix(&kernel, &target, &request, found, settings, args.permanent).await?
    } else {
        found.into_iter().map(Checked::found).collect()
    };
    let report = CheckReport::new(target.name.as_deref(), checked, began);
    if args.nagios {
        let done = Done {
            stdout: report.plugin_line(),
            ..Done::silent(report.plugin().into())
        };
        return Ok(if args.fix { done.kept(report) } else { done });
    }
    let wants_colour = std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let report = report.in_colour(io::stdout().is_terminal() && wants_colour);
    let done = Done::print(global, &report)?;
    Ok(if args.fix { done.kept(report) } else { done })
}

/// Repairs what is stale, and checks again what was changed.
async fn fix(
    kernel: &Kernel,
    target: &Target,
    request: &check::Request,
    found: Vec<check::Finding>,
    settings: &Settings,
    permanent: bool,
) -> Result<Vec<Checked>, Error> {
    let mut checked: Vec<_> = found.into_iter().map(Checked::found).collect();
    let mut to_announce = Vec::new();
    for one in &mut checked {
        if one.finding.can_be_announced() {
            to_announce.push(one.finding.placed.clone());
            one.mended = Some(check::Mended::Announced);
        } else {
            one.mended = check::mend(kernel, &one.finding, permanent).await?;
        }
    }
    if !to_announce.is_empty() {
        let announcement = announce::Request {
            vips: to_announce,
            ..target.to_announce(settings)
        };
        let mut session = Session::prepare(&announcement, Instant::now()).await?;
        session.run(std::future::pending::<()>(), |_, _| ()).await?;
    }
    let changed = |one: &&Checked| one.mended.as_ref().is_some_and(check::Mended::is_a_change);
    let again = check::Request {
        vips: checked
            .iter()
            .filter(changed)
            .map(|one| one.finding.placed.clone())
            .collect(),
        ..request.clone()
    };
    for finding in check::look(kernel, &again).await? {
        let same = |one: &&mut Checked| {
            one.finding.placed == finding.placed && one.finding.interface == finding.interface
        };
        if let Some(one) = checked.iter_mut().find(same) {
            one.before = Some(one.finding.verdict);
            one.finding = finding;
            if matches!(one.mended, Some(check::Mended::Deleted)) {
                one.finding.has_to_be_resolved();
            }
        }
    }
    Ok(checked)
}

//! `release`: remove VIPs that a dead keepalived left on this host.

use super::output::Done;
use super::target::{read_configuration, warn_of_all};
use crate::cli::{Global, Release};
use crate::error::Error;
use crate::kernel::Kernel;
use crate::release;
use crate::report::ReleaseReport;
use crate::settings::Settings;

pub(super) async fn release(
    args: &Release,
    settings: &Settings,
    global: &Global,
) -> Result<Done, Error> {
    let configuration = read_configuration(global)?;
    warn_of_all(&configuration);
    let configured = configuration.placed_vips();
    let vips: Vec<_> = if args.all {
        configured.iter().map(|placed| placed.vip).collect()
    } else {
        args.vips.iter().map(|written| written.vip).collect()
    };
    let (kernel, pid_files) = (Kernel::connect()?, &settings.orders.pid_files);
    let held = release::release(&kernel, &vips, &configured, pid_files, global.dry_run).await?;
    Done::report(global, ReleaseReport::new(&held, global.dry_run))
}

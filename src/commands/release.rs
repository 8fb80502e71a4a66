//! `release`: let go of VIPs that a dead keepalived has left on this host.

use vipherald_core::address::Vip;

use super::output::{Done, deliver, print};
use super::target::read_configuration;
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
    let configured = read_configuration(global)?.placed_vips();
    let vips: Vec<Vip> = if args.all {
        configured.iter().map(|placed| placed.vip).collect()
    } else {
        args.vips()
    };
    let kernel = Kernel::connect()?;
    let pid_files = &settings.orders.pid_files;
    let held = release::release(&kernel, &vips, &configured, pid_files, global.dry_run).await?;
    let report = ReleaseReport::new(&held, global.dry_run);
    let stdout = if global.dry_run {
        print(global, &report)?
    } else {
        deliver(global, &report)?
    };
    let exit = report.exit();
    Ok(Done { exit, stdout })
}

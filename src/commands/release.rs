//! `release`: let go of VIPs that a dead keepalived has left on this host.

use super::output::{Done, deliver, print};
use super::target::read_configuration;
use crate::address::Vip;
use crate::cli::{Global, Release};
use crate::error::Error;
use crate::kernel::Kernel;
use crate::orphan;
use crate::report::ReleaseReport;
use crate::settings::Settings;

pub(super) async fn release(
    args: &Release,
    settings: &Settings,
    global: &Global,
) -> Result<Done, Error> {
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
    let stdout = if global.dry_run {
        print(global, &report)?
    } else {
        deliver(global, &report)?
    };
    let exit = report.exit();
    Ok(Done { exit, stdout })
}

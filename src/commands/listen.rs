//! `listen`: obey the orders of a new owner.

use std::rc::Rc;

use super::output::Done;
use super::target::options;
use crate::cli::{Global, Listen};
use crate::error::Error;
use crate::history::keeper::Keeper;
use crate::listen;
use crate::settings::Settings;
use crate::signals::termination;

pub(super) async fn listen(
    args: &Listen,
    settings: &Settings,
    global: &Global,
    history: Rc<Keeper>,
) -> Result<Done, Error> {
    // Whoever binds a socket by hand wants it to stay; systemd starts this again when needed.
    let default = args.bind.is_none().then_some(settings.orders.idle);
    let request = listen::Request {
        bind: args.bind,
        idle: args.idle.or(default),
        settings: settings.orders.clone(),
        keepalived_conf: global.keepalived_conf().to_owned(),
        options: options(global),
        history,
    };
    let exit = listen::listen(request, termination()).await?;
    Ok(Done::silent(exit))
}

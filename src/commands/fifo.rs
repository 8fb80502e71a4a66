//! `fifo`: do what keepalived's events call for, in order.

use std::rc::Rc;
use std::time::Instant;

use log::error;

use super::advice::with_advice;
use super::notify::answer;
use super::target::read_configuration;
use crate::cli::{Fifo, Global};
use crate::error::Error;
use crate::event::Event;
use crate::exit::Exit;
use crate::fifo;
use crate::settings::Settings;
use crate::termination::termination;

pub(super) async fn fifo(args: &Fifo, settings: Settings, global: &Global) -> Result<Exit, Error> {
    // keepalived starts its FIFO script anew at every reload, so that this is what it runs with.
    let context = Rc::new((read_configuration(global)?, settings, global.clone()));
    let answer_event = move |event: Event, newer| {
        let context = Rc::clone(&context);
        async move {
            let (configuration, settings, global) = &*context;
            let began = Instant::now();
            let done = answer(&event, configuration, settings, global, began, newer).await;
            if let Err(error) = done {
                error!("{}: {}", event.name, with_advice("fifo", &error));
            }
        }
    };
    fifo::follow(&args.path, Box::pin(termination()), answer_event).await
}

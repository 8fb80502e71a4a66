//! `history`: show the receipts of what vipherald did on this host.

use std::fs;

use log::{Level, info};
use serde::Serialize;
use serde_json::Value;

use super::output::Done;
use crate::cli::{Global, History};
use crate::error::Error;
use crate::exit::Exit;
use crate::history::receipt::Receipt;
use crate::history::store::Store;
use crate::history::table::table;
use crate::history::{Selection, plot};
use crate::printable::one_line;
use crate::report::{Line, Report};
use crate::settings::Settings;

pub(super) fn history(args: &History, settings: &Settings, global: &Global) -> Result<Done, Error> {
    let store = Store::of(settings);
    let path = store.path();
    let all = store.read().map_err(|source| Error::History {
        path: path.clone(),
        source,
    })?;
    let draws = args.svg.is_some() || args.plot;
    let selection = Selection {
        vips: args.vips.iter().map(|vip| vip.vip.to_string()).collect(),
        // As it is shown.
        instance: args.instance.as_deref().map(|name| one_line(name).into()),
        since: args.since,
        // The last failover may be followed by other receipts.
        last: args.last.filter(|_| !draws),
    };
    let mut chosen = selection.of(all);
    if draws {
        chosen.retain(|(_, receipt)| receipt.is_takeover());
        let surplus = chosen.len().saturating_sub(args.last.unwrap_or(1));
        chosen.drain(..surplus);
    }
    if chosen.is_empty() {
        if draws {
            return Err(Error::NoFailover(path));
        }
        info!("no receipt in {} is one of these", path.display());
    }
    let (values, receipts): (Vec<_>, Vec<_>) = chosen.into_iter().unzip();
    if let Some(file) = &args.svg {
        fs::write(file, plot::picture(&receipts)).map_err(|source| Error::Picture {
            path: file.clone(),
            source,
        })?;
        return Ok(Done::silent(Exit::Done));
    }
    let report = HistoryReport {
        command: "history",
        version: env!("CARGO_PKG_VERSION"),
        receipts: values,
        text: text(&receipts, args),
    };
    Done::print(global, &report)
}

fn text(receipts: &[Receipt], args: &History) -> String {
    if args.plot {
        receipts.iter().map(plot::bars).collect()
    } else if receipts.is_empty() {
        String::new()
    } else {
        table(receipts, args.peers)
    }
}

#[derive(Serialize)]
struct HistoryReport {
    command: &'static str,
    version: &'static str,
    receipts: Vec<Value>,
    #[serde(skip)]
    text: String,
}

impl Report for HistoryReport {
    fn lines(&self) -> Vec<Line> {
        let lines = self.text.lines();
        lines.map(|line| Line::new(Level::Info, line)).collect()
    }

    fn exit(&self) -> Exit {
        Exit::Done
    }
}

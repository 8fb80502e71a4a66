//! What a command prints and logs.

use std::io::{self, Write};

use crate::cli::Global;
use crate::error::Error;
use crate::report::Report;

/// Tells what happened: always to the log, with `--json` also on stdout.
pub(super) fn deliver(global: &Global, report: &impl Report) -> Result<(), Error> {
    report.log();
    if global.json {
        print(global, report)?;
    }
    Ok(())
}

pub(super) fn print(global: &Global, report: &impl Report) -> Result<(), Error> {
    let text = if global.json {
        let json = serde_json::to_string(report).map_err(|error| Error::Stdout(error.into()))?;
        escape_c1(&json) + "\n"
    } else {
        report.text()
    };
    write(&text)
}

pub(super) fn write(text: &str) -> Result<(), Error> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(Error::Stdout)
}

/// JSON without the control characters that it allows as they are, and terminals obey.
fn escape_c1(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\u{7f}'..='\u{9f}' => escaped += &format!("\\u{:04x}", u32::from(character)),
            _ => escaped.push(character),
        }
    }
    escaped
}

//! What to do if keepalived.conf does not say what a command needs to know.

use std::io;

use vipherald_core::keepalived;

use crate::error::Error;

/// Why a command failed, and what to do next.
pub(super) fn with_advice(command: &str, error: &Error) -> String {
    match error {
        Error::Keepalived(cause) => format!("{error}{}", advice(command, cause)),
        _ => error.to_string(),
    }
}

const FILE: &str = "if keepalived reads another file, name it by --keepalived-conf FILE";

fn advice(command: &str, cause: &keepalived::Error) -> String {
    let vips = match command {
        "announce" | "purge" | "check" | "order" => Some(format!(
            "pass the VIPs as arguments: `vipherald {command} VIP…`"
        )),
        "notify" | "fifo" => Some(
            "name the VIPs in hooks of their own: `vipherald announce VIP…` in notify_master"
                .to_owned(),
        ),
        // The other commands are about the file itself.
        _ => None,
    };
    match (cause, vips) {
        // Its text has advice of its own.
        (keepalived::Error::Unreadable { source, .. }, _)
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            String::new()
        }
        // The file is right, but vipherald can't rely on it.
        (keepalived::Error::Refused { .. }, None) => String::new(),
        (keepalived::Error::Refused { .. }, Some(vips)) => format!("; {vips}"),
        (_, None) => format!("; {FILE}"),
        (_, Some(vips)) => format!("; {FILE}, or {vips}"),
    }
}

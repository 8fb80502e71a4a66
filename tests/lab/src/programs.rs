//! The programs that the lab runs, and the packages they come in.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::{env, io::Write};

/// Programs that tests use, and their Debian packages.
const PACKAGES: [(&str, &str); 11] = [
    ("arping", "iputils-arping"),
    ("curl", "curl"),
    ("ip", "iproute2"),
    ("keepalived", "keepalived"),
    ("nft", "nftables"),
    ("openssl", "openssl"),
    ("ping", "iputils-ping"),
    ("prometheus-node-exporter", "prometheus-node-exporter"),
    ("promtool", "prometheus"),
    ("tcpdump", "tcpdump"),
    ("tshark", "tshark"),
];

/// Where programs are sought: an ordinary user's PATH often lacks the sbin directories.
pub(crate) fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", env::var("PATH").unwrap_or_default())
}

/// A program's full path.
///
/// # Panics
///
/// Where it is not installed, saying what to install.
pub(crate) fn find(program: &str) -> PathBuf {
    if program.contains('/') {
        return program.into();
    }
    env::split_paths(&search_path())
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{}", not_installed(program)))
}

fn not_installed(program: &str) -> String {
    match PACKAGES.iter().find(|(name, _)| *name == program) {
        Some((_, package)) => format!("{program} is not installed: apt-get install {package}"),
        None => format!("{program} is not installed"),
    }
}

/// Runs `command` with `input` on its standard input; gives its standard output.
///
/// # Panics
///
/// With the command and what it wrote to standard error, if it fails.
pub(crate) fn run(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early closes the pipe; its exit status says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert_success(&format!("{command:?}"), &output);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Panics unless `output` is a success.
pub(crate) fn assert_success(command: &str, output: &Output) {
    assert!(
        output.status.success(),
        "{command}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[cfg(test)]
mod tests {
    use super::not_installed;

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        assert_eq!(
            not_installed("keepalived"),
            "keepalived is not installed: apt-get install keepalived"
        );
    }
}

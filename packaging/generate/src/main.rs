//! Generates what a package has besides the program and the files of this repository: shell
//! completions, the manual, and the copyrights and the bill of materials of everything that is
//! linked into the program.
//!
//!     cargo run --package vipherald-generate -- TARGET FOLDER
#![expect(clippy::print_stderr, reason = "a build step reports errors there")]

mod completions;
mod copyright;
mod linked;
mod manual;
mod sbom;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

use clap::CommandFactory;
use vipherald::cli::Cli;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [target, folder] = arguments.as_slice() else {
        eprintln!("usage: vipherald-generate TARGET FOLDER");
        return ExitCode::from(2);
    };
    match generate(target, Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vipherald-generate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn generate(target: &str, folder: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(folder)?;
    completions::write(folder)?;
    for (name, page) in pages()? {
        fs::write(folder.join(name), page)?;
    }
    let linked = linked::linked(target)?;
    fs::write(folder.join("copyright"), copyright::copyright(&linked)?)?;
    fs::write(folder.join("vipherald.cdx.json"), sbom::sbom(&linked)?)?;
    Ok(())
}

/// The manual's pages.
fn pages() -> Result<[(&'static str, String); 2], Box<dyn Error>> {
    let commands = include_str!("../../man/vipherald.8");
    let settings = include_str!("../../man/vipherald.toml.5");
    let example = include_str!("../../../examples/vipherald.toml");
    Ok([
        (
            "vipherald.8",
            manual::of_commands(commands, Cli::command())?,
        ),
        ("vipherald.toml.5", manual::of_settings(settings, example)?),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_tells_of_every_command_option_and_setting() {
        pages().unwrap();
    }

    /// roff would drop a quote that it interprets, and a copied example would lack it.
    #[test]
    fn the_manuals_examples_can_be_copied() {
        let [(_, commands), (_, settings)] = pages().unwrap();
        let lines = settings
            .lines()
            .filter_map(|line| line.strip_prefix(".It Cm "));
        let shown: Vec<_> = lines.filter(|line| line.contains(" No = Ar ")).collect();
        assert!(shown.len() > 10);
        for line in shown {
            assert!(!line.contains('"'), "{line}");
            let setting = line.replace(" No = Ar ", " = ").replace("\\(dq", "\"");
            setting.parse::<toml::Table>().unwrap();
        }
        for example in commands
            .split(".Bd ")
            .filter(|one| one.contains("global_defs"))
        {
            assert!(example.contains("    script_user root\n"), "{example}");
        }
    }
}

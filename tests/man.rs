//! The manual knows the command line: every command and option, and none besides.
#![expect(clippy::unwrap_used, reason = "what a test cannot do fails it")]

use std::collections::BTreeSet;
use std::fs;

use clap::{Command, CommandFactory};
use vipherald::cli::Cli;

#[test]
fn the_manual_has_the_options_of_the_command_line_and_no_others() {
    let manual = manual();
    let mut program = Cli::command();
    program.build();
    let mut sections = vec![("Ss Options of every command".to_owned(), options(&program))];
    for command in commands(&program) {
        let mut own = options(command);
        own.retain(|option| !sections[0].1.contains(option));
        sections.push((format!("Ss Options of {}", command.get_name()), own));
    }
    for (heading, options) in sections {
        assert_eq!(documented(&manual, &heading), options, "{heading}");
    }
}

#[test]
fn the_manual_has_every_command() {
    let manual = manual();
    let program = Cli::command();
    for command in commands(&program) {
        let item = format!("\n.It Cm {}\n", command.get_name());
        assert!(manual.contains(&item), "{item}");
    }
}

fn manual() -> String {
    fs::read_to_string("packaging/man/vipherald.8").unwrap()
}

/// All commands but `help`.
fn commands(program: &Command) -> impl Iterator<Item = &Command> {
    program
        .get_subcommands()
        .filter(|command| command.get_name() != "help")
}

/// The options of a command, as `-i --interface IF`.
fn options(command: &Command) -> BTreeSet<String> {
    command
        .get_arguments()
        .filter(|argument| !argument.is_positional())
        .map(|option| {
            let short = option.get_short().map(|short| format!("-{short}"));
            let long = option.get_long().map(|long| format!("--{long}"));
            let takes_value = option.get_action().takes_values();
            let value = takes_value.then(|| option.get_value_names().unwrap()[0].to_string());
            let parts: Vec<_> = [short, long, value].into_iter().flatten().collect();
            parts.join(" ")
        })
        .collect()
}

/// The options of a section, from lines such as `.It Fl i , -interface Ar IF`.
fn documented(manual: &str, heading: &str) -> BTreeSet<String> {
    let (_, section) = manual
        .split_once(&format!("\n.{heading}\n"))
        .unwrap_or_else(|| panic!("the manual has no `.{heading}`"));
    let end = [".Ss ", ".Sh "].map(|macro_| section.find(&format!("\n{macro_}")));
    let end = end.into_iter().flatten().min().unwrap();
    section[..end]
        .lines()
        .filter_map(|line| line.strip_prefix(".It Fl "))
        .map(|item| {
            let (names, value) = item
                .split_once(" Ar ")
                .map_or((item, None), |(names, value)| {
                    (names, Some(value.to_owned()))
                });
            let names = names.split(" , ").map(|name| format!("-{name}"));
            names.chain(value).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

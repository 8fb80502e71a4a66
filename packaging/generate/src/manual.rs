//! The manual's pages. Their text on options and settings comes from `--help` and the example
//! settings. It replaces a line such as `.\" @options announce@`.

use std::error::Error;

use clap::{Arg, Command};

/// vipherald(8). Options of every command occur once, under `@options@`.
pub(crate) fn of_commands(page: &str, mut program: Command) -> Result<String, Box<dyn Error>> {
    program.build();
    let common: Vec<_> = options(&program).map(Arg::get_id).collect();
    let mut page = put(page, "options", &list(options(&program).map(option)))?;
    for command in program.get_subcommands() {
        let name = command.get_name();
        if name == "help" {
            continue;
        }
        if !page.contains(&format!("\n.It Cm {name}\n")) {
            return Err(format!("the manual does not tell of the command {name}").into());
        }
        let mut own = options(command)
            .filter(|option| !common.contains(&option.get_id()))
            .peekable();
        if own.peek().is_some() {
            page = put(&page, &format!("options {name}"), &list(own.map(option)))?;
        }
    }
    complete(page)
}

/// vipherald.toml(5), from the example, which has every setting commented out, with its default.
pub(crate) fn of_settings(page: &str, example: &str) -> Result<String, Box<dyn Error>> {
    let mut sections = String::new();
    let mut items = Vec::new();
    // The first paragraph is about the file.
    for paragraph in example.split("\n\n").skip(1) {
        let (comments, settings): (Vec<_>, Vec<_>) =
            paragraph.lines().partition(|line| line.starts_with("# "));
        let text: Vec<_> = comments.iter().map(|line| &line[2..]).collect();
        let text = sentences(&text.join(" "));
        let [setting] = settings.as_slice() else {
            return Err(format!("not one setting with its comment: {paragraph}").into());
        };
        let setting = setting.trim_start_matches('#');
        if let Some((key, value)) = setting.split_once(" = ") {
            // mdoc would take a quote as quoting a macro's argument, and not print it.
            let value = escaped(value).replace('"', "\\(dq");
            items.push(format!(".It Cm {key} No = Ar {value}\n{text}"));
        } else {
            sections += &list(items.drain(..));
            sections += &format!(".Ss {setting}\n{text}");
        }
    }
    sections += &list(items.into_iter());
    complete(put(page, "settings", &sections)?)
}

fn put(page: &str, what: &str, text: &str) -> Result<String, Box<dyn Error>> {
    let line = format!(".\\\" @{what}@\n");
    if !page.contains(&line) {
        return Err(format!("the manual has no place for: {what}").into());
    }
    Ok(page.replace(&line, text))
}

fn complete(page: String) -> Result<String, Box<dyn Error>> {
    match page.lines().find(|line| line.starts_with(".\\\" @")) {
        Some(line) => Err(format!("nothing belongs at this place of the manual: {line}").into()),
        None => Ok(page),
    }
}

fn options(command: &Command) -> impl Iterator<Item = &Arg> {
    command
        .get_arguments()
        .filter(|argument| !argument.is_positional())
}

fn list(items: impl Iterator<Item = String>) -> String {
    format!(".Bl -tag -width Ds\n{}.El\n", items.collect::<String>())
}

/// An option, such as `.It Fl i , -interface Ar IF`, and its help.
fn option(option: &Arg) -> String {
    let short = option.get_short().map(String::from);
    let long = option.get_long().map(|long| format!("-{long}"));
    let names: Vec<_> = short.into_iter().chain(long).collect();
    let takes_value = option.get_action().takes_values();
    let value = option.get_value_names().filter(|_| takes_value);
    let value = value.map_or_else(String::new, |names| format!(" Ar {}", names[0]));
    let help = option.get_long_help().or_else(|| option.get_help());
    let mut text = help.map_or_else(String::new, ToString::to_string);
    let defaults = option.get_default_values().iter().filter(|_| takes_value);
    for default in defaults {
        text += &format!(" [default: {}]", default.display());
    }
    format!(".It Fl {}{value}\n{}", names.join(" , "), sentences(&text))
}

/// Text of a comment or a help as mdoc(7) wants it: each sentence on its own line. `[default: x]` at
/// the end of a help becomes a sentence, too.
fn sentences(text: &str) -> String {
    text.split("\n\n").map(paragraph).collect()
}

fn paragraph(text: &str) -> String {
    let mut text = text.trim_end_matches('.').replace('\n', " ");
    if let Some((before, default)) = text.clone().rsplit_once(" [default: ") {
        let default = default.trim_end_matches(']');
        text = format!("{before}. The default is {default}");
    }
    let mut lines = String::new();
    for (at, sentence) in text.split(". ").enumerate() {
        let is_new = sentence.starts_with(|first: char| first.is_uppercase() || first == '`');
        lines += match (at, is_new) {
            (0, _) => "",
            (_, true) => ".\n",
            (_, false) => ". ",
        };
        lines += sentence;
    }
    quoted(&escaped(&lines)) + ".\n"
}

/// Escapes what roff would interpret.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e");
    match text.chars().next() {
        Some('.' | '\'') => format!("\\&{text}"),
        _ => text,
    }
}

/// Backticks, in pairs, enclose bold text.
fn quoted(text: &str) -> String {
    let mut fonts = ["\\fB", "\\fR"].into_iter().cycle();
    let mut quoted = String::new();
    for (at, part) in text.split('`').enumerate() {
        if at > 0 {
            quoted.extend(fonts.next());
        }
        quoted += part;
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program() -> Command {
        let names = Arg::new("names").short('n').long("names").value_name("WHO");
        let names = names.help("Who, or `all`. Not you [default: nobody]");
        let quiet = Arg::new("quiet").long("quiet").global(true).num_args(0);
        let quiet = quiet.help("Say nothing");
        let greet = Command::new("greet").arg(names);
        Command::new("program").arg(quiet).subcommand(greet)
    }

    const PAGE: &str = "\n.It Cm greet\n.\\\" @options greet@\n.\\\" @options@\n";

    #[test]
    fn options_are_told_of_as_help_does_where_the_page_asks_for_it() {
        let page = of_commands(PAGE, program()).unwrap();
        let names = ".It Fl n , -names Ar WHO\nWho, or \\fBall\\fR.\nNot you.\n\
                     The default is nobody.\n.El\n";
        assert!(page.contains(names), "{page}");
        assert_eq!(page.matches(".It Fl -quiet\nSay nothing.\n").count(), 1);
    }

    #[test]
    fn a_command_or_a_place_too_few_or_too_many_is_an_error() {
        for (from, to) in [
            ("\n.It Cm greet", "\n.It Cm meet"),
            ("@options greet@", "@options meet@"),
            ("@options@", "options"),
            ("\n.It", "\n.\\\" @more@\n.It"),
        ] {
            assert!(
                of_commands(&PAGE.replace(from, to), program()).is_err(),
                "{to}"
            );
        }
    }

    #[test]
    fn settings_are_told_of_as_the_example_does() {
        let example = "# All.\n\n# How much. Or\n# less.\n#rate = 5\n\n# Others.\n#[more]\n\n\
                       # Who.\n#names = \"a\\b\"\n";
        let page = of_settings(".\\\" @settings@\n", example).unwrap();
        assert_eq!(
            page,
            ".Bl -tag -width Ds\n.It Cm rate No = Ar 5\nHow much.\nOr less.\n.El\n\
             .Ss [more]\nOthers.\n\
             .Bl -tag -width Ds\n.It Cm names No = Ar \\(dqa\\eb\\(dq\nWho.\n.El\n"
        );
    }

    #[test]
    fn a_setting_without_a_comment_or_a_comment_without_a_setting_is_an_error() {
        for example in ["# All.\n\n#rate = 5\n#wait = 1\n", "# All.\n\n# Nothing.\n"] {
            assert!(
                of_settings(".\\\" @settings@\n", example).is_err(),
                "{example}"
            );
        }
    }
}

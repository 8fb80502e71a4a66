//! One line of text: strips its comment, cuts it at braces, splits it into words.

/// White space that separates words.
const WHITE_SPACE: [char; 6] = [' ', '\t', '\x0c', '\n', '\r', '\x0b'];

/// White space around lines.
pub(super) const BLANK: [char; 2] = [' ', '\t'];

/// The line without its comment and the blanks around it.
///
/// `!` and `#` start a comment except inside double quotes. A final backslash, which continues a
/// multi-line definition, stays even if it is inside the comment.
pub(super) fn decomment(line: &str) -> String {
    // Twice: keepalived's parent process strips comments and turns `\#` into `#`. Its VRRP process
    // reads the parent's copy, where that `#` starts a comment.
    decomment_once(&decomment_once(line))
}

fn decomment_once(line: &str) -> String {
    let line = line.trim_start_matches(BLANK);
    let bytes = line.as_bytes();
    let mut text = String::with_capacity(line.len());
    let mut kept_from = 0;
    let mut comment_at = None;
    let mut quoted = false;
    let mut continued = false;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' if comment_at.is_none() => quoted = !quoted,
            b'\\' => match bytes.get(at + 1) {
                None => {
                    continued = true;
                    break;
                }
                Some(b'#' | b'!') if !quoted => {
                    text.push_str(&line[kept_from..at]);
                    kept_from = at + 1;
                    at += 1;
                }
                Some(_) => at += 1,
            },
            b'!' | b'#' if !quoted && comment_at.is_none() => {
                comment_at = Some(text.len() + at - kept_from);
            }
            _ => {}
        }
        at += 1;
    }
    text.push_str(&line[kept_from..at.min(line.len())]);
    text.truncate(comment_at.unwrap_or(text.len()));
    text.truncate(text.trim_end_matches(BLANK).len());
    if continued {
        text.push('\\');
    }
    text
}

/// Cuts a line at its first brace outside double quotes. The rest, if any, is the next line.
///
/// A brace at the start is a chunk by itself; otherwise the chunk ends before the brace.
pub(super) fn split_at_brace(line: &str) -> (&str, Option<&str>) {
    let chunk_end = match first_brace(line) {
        None => line.len(),
        Some(0) => 1,
        Some(at) => at,
    };
    let (chunk, rest) = line.split_at(chunk_end);
    let rest = rest.trim_matches(BLANK);
    (
        chunk.trim_end_matches(BLANK),
        (!rest.is_empty()).then_some(rest),
    )
}

/// The position of the first brace outside double quotes.
pub(super) fn first_brace(line: &str) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + line[from..].find(['{', '}', '"'])?;
        if !line[at..].starts_with('"') {
            return Some(at);
        }
        // An unclosed quote protects the rest of the line.
        from = at + 1 + line[at + 1..].find('"')? + 1;
    }
}

/// The words of a chunk, and whether its last double quote is unclosed.
///
/// A quoted string is one word, without its quotes. It ends the word before it.
pub(super) fn words(chunk: &str) -> (Vec<String>, bool) {
    let mut words = Vec::new();
    let mut rest = chunk.trim_start_matches(WHITE_SPACE);
    while !rest.is_empty() {
        let end = if let Some(quoted) = rest.strip_prefix('"') {
            let Some(length) = quoted.find('"') else {
                return (words, true);
            };
            words.push(quoted[..length].to_owned());
            length + 2
        } else {
            let end = rest
                .find(|c| c == '"' || WHITE_SPACE.contains(&c))
                .unwrap_or(rest.len());
            words.push(rest[..end].to_owned());
            end
        };
        rest = rest[end..].trim_start_matches(WHITE_SPACE);
    }
    (words, false)
}

/// The words of a script's line, which keepalived splits differently: single quotes protect, too,
/// quotes may stand inside a word, and a backslash protects the next character. `None` if
/// keepalived can't parse it.
///
/// This does not interpret escapes such as `\\n` or `\\x41`: no program's name needs them.
pub(super) fn command_words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', _) => word.get_or_insert_default().push(characters.next()?),
            (_, Some(open)) if character == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (_, None) if WHITE_SPACE.contains(&character) => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_starts_anywhere_but_in_double_quotes() {
        for (line, text) in [
            ("  10.0.0.1 # one", "10.0.0.1"),
            ("10.0.0.1!two", "10.0.0.1"),
            ("# all of it", ""),
            ("a \"#b\" c # d", "a \"#b\" c"),
            ("a '#b'", "a '"),
            ("a \\# b", "a"),
            ("a \\\" # b", "a \\\""),
            ("a \"open # b", "a \"open # b"),
            ("\tname é # ü", "name é"),
        ] {
            assert_eq!(decomment(line), text, "{line}");
        }
    }

    #[test]
    fn a_backslash_at_the_end_survives_blanks_and_comments() {
        assert_eq!(decomment("a   \\"), "a\\");
        assert_eq!(decomment("a # b \\"), "a\\");
        assert_eq!(decomment("# b \\"), "\\");
    }

    #[test]
    fn braces_outside_quotes_cut_the_line() {
        for (line, chunk, rest) in [
            ("vrrp_instance VI_1{", "vrrp_instance VI_1", Some("{")),
            ("{ 10.0.0.1 }", "{", Some("10.0.0.1 }")),
            ("10.0.0.1 }", "10.0.0.1", Some("}")),
            ("}}", "}", Some("}")),
            ("}", "}", None),
            ("a \"{\" b", "a \"{\" b", None),
            ("a \"{\" {", "a \"{\"", Some("{")),
            ("a \"b {", "a \"b {", None),
        ] {
            assert_eq!(split_at_brace(line), (chunk, rest), "{line}");
        }
    }

    #[test]
    fn a_quoted_string_is_one_word() {
        let split = |chunk| words(chunk).0.join("|");
        assert_eq!(split("a  b\tc"), "a|b|c");
        assert_eq!(split("a \"b c\"d"), "a|b c|d");
        assert_eq!(split("'a b'"), "'a|b'");
        assert_eq!(split("\"\""), "");
        assert_eq!(words("a \"b"), (vec!["a".to_owned()], true));
    }

    #[test]
    fn a_scripts_line_is_split_like_a_shells() {
        let split = |line| command_words(line).map(|words| words.join("|"));
        for (line, words) in [
            ("notify \"/a b\" root", Some("notify|/a b|root")),
            ("notify '/a \"b\"' c", Some("notify|/a \"b\"|c")),
            ("/a' b'c\\ d e", Some("/a bc d|e")),
            ("a \"\" b", Some("a||b")),
            ("a \"b", None),
            ("a \\", None),
            ("", Some("")),
        ] {
            assert_eq!(split(line).as_deref(), words, "{line}");
        }
    }
}

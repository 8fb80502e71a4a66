//! Text that others wrote, as it can be shown: what could steer a terminal, or begin a new line
//! of a log, is escaped.

use std::borrow::Cow;

/// The text with its control characters escaped as in Rust: `\n`, `\u{1b}`.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if steers(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Control characters, and those that break lines or change the direction of writing.
fn steers(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(
            printable("VI\n<0>\u{1b}[2J\u{9b}\u{202e}é"),
            "VI\\n<0>\\u{1b}[2J\\u{9b}\\u{202e}é"
        );
        assert!(matches!(printable("VI_1 \\n"), Cow::Borrowed(_)));
    }
}

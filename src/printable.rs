//! Makes text from elsewhere safe to print: from keepalived.conf, the command line, the FIFO, the file
//! system.

use std::borrow::Cow;

/// The text as one line that neither controls a terminal nor forges a second log line: control and
/// text direction characters are escaped as in Rust, such as `\n` or `\u{1b}`.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_unprintable(character) {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    Cow::Owned(line)
}

/// C0 and C1 controls, the separators that some programs take for line ends (U+2028, U+2029), and the
/// controls of writing direction (UAX #9 §2), which can make a line look like another one.
fn is_unprintable(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_text_holds_it_is_one_line_that_commands_nothing() {
        for (text, line) in [
            ("VI_1", "VI_1"),
            ("VI é 中文 \\n", "VI é 中文 \\n"),
            ("VI\n<0>forged", "VI\\n<0>forged"),
            ("a\r\tb\0", "a\\r\\tb\\u{0}"),
            ("\x1b[31m\u{7f}\u{9b}", "\\u{1b}[31m\\u{7f}\\u{9b}"),
            ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
            (
                "\u{202e}\u{2066}\u{200f}\u{61c}",
                "\\u{202e}\\u{2066}\\u{200f}\\u{61c}",
            ),
        ] {
            assert_eq!(one_line(text), line);
        }
    }
}

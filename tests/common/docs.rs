//! What the documentation shows.

use std::fs;
use std::path::Path;

pub(crate) fn doc(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The contents of the fenced blocks of a document.
pub(crate) fn fenced(text: &str) -> Vec<String> {
    let mut parts = text.split("```");
    let mut blocks = Vec::new();
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        let (_, block) = block.split_once('\n').unwrap();
        blocks.push(block.to_owned());
    }
    blocks
}

/// The one block of a document that has this text.
pub(crate) fn block(name: &str, part: &str) -> String {
    let mut found = fenced(&doc(name));
    found.retain(|block| block.contains(part));
    assert_eq!(found.len(), 1, "{name}: {part}");
    found.remove(0)
}

/// The indented line of a document that starts so, as it is typed into a shell.
pub(crate) fn line(name: &str, start: &str) -> String {
    let text = doc(name);
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("    "));
    let found = lines.find(|line| line.starts_with(start));
    found
        .unwrap_or_else(|| panic!("{name}: {start}"))
        .to_owned()
}

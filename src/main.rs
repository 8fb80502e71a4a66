//! The `vipherald` command.

fn main() {}

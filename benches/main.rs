//! What vipherald costs, beside what one would use instead: measured in one run and in turns, and
//! printed as the tables of docs/performance.md. Nothing is asserted.
//!
//! ```sh
//! bench PATH_OF_VIPHERALD [QUESTION...]
//! bench PATH_OF_VIPHERALD convergence [RUNS [WORD]]
//! ```
//!
//! Without a question it asks all of [`QUESTIONS`], which takes ten minutes. Single
//! measurements go to `target/bench/QUESTION.csv`, the plot to docs/.

mod comparison;
mod convergence;
mod failover;
mod first_frame;
mod passive;
mod responders;
mod scale;
mod stopwatch;
mod tables;
mod tools;

use std::path::Path;
use std::{env, fs};

type Answer = fn(&Path);

/// The questions, and who answers them.
const QUESTIONS: [(&str, Answer); 5] = [
    ("first_frame", first_frame::run),
    ("failover", failover::run),
    ("passive", passive::run),
    ("scale", scale::run),
    ("tables", tables::run),
];

fn main() {
    // cargo itself adds --bench.
    let arguments: Vec<String> = env::args().skip(1).filter(|a| a != "--bench").collect();
    let [program, questions @ ..] = arguments.as_slice() else {
        panic!("usage: bench PATH_OF_VIPHERALD [QUESTION...]");
    };
    let program = fs::canonicalize(program).unwrap_or_else(|e| panic!("{program}: {e}"));
    // cargo starts it in the lab's folder.
    env::set_current_dir(tools::ROOT).expect("the source is where it was compiled");
    fs::create_dir_all("target/bench").expect("the working directory is writable");
    if let [question, rest @ ..] = questions
        && question == "convergence"
    {
        return convergence::run(&program, rest);
    }
    let known = |question: &String| QUESTIONS.iter().any(|(name, _)| name == question);
    assert!(questions.iter().all(known), "no such question");
    for (name, answer) in QUESTIONS {
        if questions.is_empty() || questions.iter().any(|question| question == name) {
            // Of an earlier run, if there was one.
            let _ = fs::remove_file(format!("target/bench/{name}.csv"));
            answer(&program);
        }
    }
}

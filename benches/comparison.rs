//! Programs that do the same, measured in turns, as a table in Markdown.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use crate::stopwatch::{quantile, time};

/// Turns that make a block: ratios are those of blocks' medians.
const BLOCKS: usize = 10;

/// What was measured of each program; the first ones are ours.
pub(crate) struct Comparison {
    what: String,
    ours: usize,
    programs: Vec<(String, Vec<Duration>)>,
}

impl Comparison {
    /// `ours` of the programs are what the others are compared with.
    pub(crate) fn new(what: impl Into<String>, ours: usize, programs: &[&str]) -> Self {
        let programs = programs.iter().map(|name| (name.to_string(), Vec::new()));
        Self {
            what: what.into(),
            ours,
            programs: programs.collect(),
        }
    }

    /// One turn of a program.
    pub(crate) fn add(&mut self, program: usize, took: Duration) {
        self.programs[program].1.push(took);
    }

    /// Prints the table, and adds every turn to the question's file.
    pub(crate) fn print(&self, question: &str) {
        let turns = self.programs[0].1.len();
        println!("{}, {turns} turns\n", self.what);
        let ours = &self.programs[..self.ours];
        let heads: String = ours
            .iter()
            .map(|(name, _)| format!(" {name} / it |"))
            .collect();
        println!("| | median | first to ninth tenth |{heads}");
        println!("|---|---|---|{}", "---|".repeat(self.ours));
        for (number, (name, values)) in self.programs.iter().enumerate() {
            let at = |share| quantile(values, share).map_or("-".to_owned(), time);
            let ratios: String = ours
                .iter()
                .map(|(_, ours)| match number < self.ours {
                    true => " |".to_owned(),
                    false => format!(" {} |", ratio(ours, values)),
                })
                .collect();
            let (middle, first, ninth) = (at(0.5), at(0.1), at(0.9));
            println!("| {name} | {middle} | {first} to {ninth} |{ratios}");
        }
        println!();
        self.write(question);
    }

    /// Prints comparisons of the same programs, made under several conditions, as one table: medians,
    /// and how many times as long the first program takes as each other.
    pub(crate) fn print_all(what: &str, all: &[Self], question: &str) {
        println!("{what}\n");
        let heads: String = all.iter().map(|one| format!(" {} |", one.what)).collect();
        println!("| |{heads}\n|---|{}", "---|".repeat(all.len()));
        for (number, (name, _)) in all[0].programs.iter().enumerate() {
            let cells = all.iter().map(|one| {
                let [first, this] = [0, number]
                    .map(|at| quantile(&one.programs[at].1, 0.5).expect("there was a turn"));
                let ratio = first.as_secs_f64() / this.as_secs_f64();
                match number {
                    0 => format!(" {} |", time(this)),
                    _ => format!(" {} ({ratio:.2}) |", time(this)),
                }
            });
            println!("| {name} |{}", cells.collect::<String>());
        }
        println!();
        for one in all {
            one.write(question);
        }
    }

    fn write(&self, question: &str) {
        let mut csv = String::new();
        for (name, values) in &self.programs {
            for (turn, value) in (1..).zip(values) {
                let seconds = value.as_secs_f64();
                writeln!(csv, "\"{}\",\"{name}\",{turn},{seconds:.6}", self.what)
                    .expect("a String takes all");
            }
        }
        let path = format!("target/bench/{question}.csv");
        let file = OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| file.write_all(csv.as_bytes()))
            .expect("target is writable");
    }
}

/// How many times as long we take: the median, and the range of the blocks' medians.
fn ratio(ours: &[Duration], other: &[Duration]) -> String {
    let of = |ours: &[Duration], other: &[Duration]| {
        let [ours, other] = [ours, other].map(|all| quantile(all, 0.5).unwrap_or_default());
        ours.as_secs_f64() / other.as_secs_f64()
    };
    let block = ours.len().div_ceil(BLOCKS);
    let blocks = ours.chunks(block).zip(other.chunks(block));
    let ratios: Vec<f64> = blocks.map(|(ours, other)| of(ours, other)).collect();
    let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let most = ratios.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2} to {most:.2})", of(ours, other))
}

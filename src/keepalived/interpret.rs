//! Blocks and keywords: chunks in, instances and groups out.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::definitions::{self, UNKNOWN};
use super::instance::{Draft, Globals};
use super::lines::{Chunk, Lines, Place, Weight};
use super::virtual_server::VirtualServer;
use super::{Configuration, GROUP, Group, INSTANCE, Problem, Refused};

/// Warnings beyond these would tell nobody anything.
const WARNINGS_MAX: usize = 1000;

/// Keywords at the top whose block holds keywords; what they hold is not for us.
const OTHER_BLOCKS: [&str; 7] = [
    "bfd_instance",
    "garp_group",
    "track_file",
    "track_group",
    "vrrp_script",
    "vrrp_track_file",
    "vrrp_track_process",
];

/// Keywords at the top whose block holds values, one per chunk.
const OTHER_VALUES: [&str; 5] = [
    "interface_up_down_delays",
    "linkbeat_interfaces",
    "static_ipaddress",
    "static_routes",
    "static_rules",
];

/// Keywords at the top that are for other keepalived processes than the one for VRRP, which
/// passes over their blocks by counting braces.
const SKIPPED: [&str; 2] = ["SSL", "virtual_server_group"];

/// Keywords of instances whose block holds values that are for us.
const INSTANCE_VALUES: [&str; 3] = [
    "unicast_peer",
    "virtual_ipaddress",
    "virtual_ipaddress_excluded",
];

/// Keywords in other blocks whose block holds values.
const NESTED_VALUES: [&str; 9] = [
    "group",
    "interfaces",
    "track_bfd",
    "track_file",
    "track_interface",
    "track_process",
    "track_script",
    "virtual_routes",
    "virtual_rules",
];

/// Whose block the chunks belong to: a problem there is its problem.
#[derive(Clone, Copy, Default)]
enum Owner {
    #[default]
    Nobody,
    Instance(usize),
    Group(usize),
}

/// A sync group that is being read.
struct GroupDraft {
    name: String,
    /// `None` until its `group` block has come.
    members: Option<Vec<String>>,
    problem: Option<Problem>,
}

pub(super) struct Interpreter<'a> {
    lines: Lines<'a>,
    /// A chunk that was read too far.
    peeked: Option<Chunk>,
    owner: Owner,
    /// The instance that has just ended: lines that only an instance can have belong to it, and
    /// it has ended too early.
    ended: Option<usize>,
    globals: Globals,
    instances: Vec<Draft>,
    instance_by_name: HashMap<String, usize>,
    groups: Vec<GroupDraft>,
    group_names: HashSet<String>,
    real_servers: Vec<IpAddr>,
    warnings: Vec<Problem>,
}

/// How far a block of values has come.
#[derive(Default)]
struct Values {
    begun: bool,
}

/// How far a block of keywords has come.
#[derive(Default)]
struct Keywords {
    begun: bool,
}

impl<'a> Interpreter<'a> {
    pub(super) fn new(lines: Lines<'a>) -> Self {
        Self {
            lines,
            peeked: None,
            owner: Owner::Nobody,
            ended: None,
            globals: Globals::default(),
            instances: Vec::new(),
            instance_by_name: HashMap::new(),
            groups: Vec::new(),
            group_names: HashSet::new(),
            real_servers: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Configuration {
        while let Some(chunk) = self.next() {
            self.top(&chunk);
        }
        self.finish()
    }

    fn top(&mut self, chunk: &Chunk) {
        let keyword = keyword(chunk);
        match keyword {
            "vrrp_instance" => self.vrrp_instance(chunk),
            "vrrp_sync_group" => self.vrrp_sync_group(chunk),
            "global_defs" => {
                let mut globals = std::mem::take(&mut self.globals);
                self.skip_block(|depth, words| {
                    if depth == 1 {
                        globals.keyword(words);
                    }
                });
                self.globals = globals;
            }
            "virtual_server" => {
                let mut server = VirtualServer::default();
                self.skip_block(|depth, words| server.keyword(depth, words));
                self.real_servers.extend(server.without_nat());
            }
            _ if SKIPPED.contains(&keyword) => self.skip_block(|_, _| ()),
            _ if OTHER_BLOCKS.contains(&keyword) => self.other_block(),
            _ if OTHER_VALUES.contains(&keyword) => self.pass_values(),
            // keepalived knows other keywords here; none of them has a block.
            "{" => {
                self.ended = None;
                self.warn(
                    chunk,
                    "a '{' that keepalived passes over, but not the block behind it",
                );
            }
            "}" => self.warn(chunk, "a '}' too many"),
            _ if INSTANCE_VALUES.contains(&keyword) || Draft::KEYWORDS.contains(&keyword) => {
                self.owner = self.ended.map_or(Owner::Nobody, Owner::Instance);
                self.refuse(
                    chunk,
                    &format!(
                        "{keyword} outside of any vrrp_instance: the one before has ended too early"
                    ),
                );
                self.owner = Owner::Nobody;
            }
            _ => {}
        }
    }

    /// `vrrp_instance NAME { … }`
    fn vrrp_instance(&mut self, chunk: &Chunk) {
        let [_, name] = &chunk.words[..] else {
            self.warn(
                chunk,
                "vrrp_instance needs a name and nothing else: keepalived passes it over",
            );
            self.skip_block(|_, _| ());
            return;
        };
        if self.instance_by_name.contains_key(name) {
            self.warn(
                chunk,
                &format!("vrrp_instance {name} is there already: keepalived passes this one over"),
            );
            self.skip_block(|_, _| ());
            return;
        }
        let index = self.instances.len();
        self.instances.push(Draft::new(name));
        self.instance_by_name.insert(name.clone(), index);
        self.owner = Owner::Instance(index);
        self.check_known(chunk, &chunk.words[1..]);
        let mut block = Keywords::default();
        while let Some(chunk) = self.next_keyword(&mut block) {
            self.instance_keyword(index, &chunk);
        }
        self.owner = Owner::Nobody;
        self.ended = Some(index);
    }

    fn instance_keyword(&mut self, index: usize, chunk: &Chunk) {
        let keyword = keyword(chunk);
        match keyword {
            "virtual_ipaddress" => self.each_value(|this, entry| {
                this.apply(entry, index, Draft::virtual_ipaddress);
            }),
            "virtual_ipaddress_excluded" => self.each_value(|this, entry| {
                this.apply(entry, index, Draft::virtual_ipaddress_excluded);
            }),
            "unicast_peer" => {
                self.instances[index].unicast();
                self.each_value(|this, entry| this.apply(entry, index, Draft::unicast_peer));
            }
            _ if NESTED_VALUES.contains(&keyword) => self.pass_values(),
            // The second one is of keepalived 2.4.
            "authentication" | "auth_hmac" => self.other_block(),
            _ if Draft::KEYWORDS.contains(&keyword) => {
                self.apply(chunk, index, Draft::keyword);
            }
            _ => {}
        }
    }

    /// Hands a line to the instance, unless it holds what can't be known.
    fn apply(
        &mut self,
        chunk: &Chunk,
        index: usize,
        handler: fn(&mut Draft, &[String]) -> Result<(), String>,
    ) {
        if !self.check_known(chunk, &chunk.words) {
            return;
        }
        if let Err(passed_over) = handler(&mut self.instances[index], &chunk.words) {
            self.warn(chunk, &format!("{passed_over}: keepalived passes it over"));
        }
    }

    /// `vrrp_sync_group NAME { group { INSTANCE … } … }`
    fn vrrp_sync_group(&mut self, chunk: &Chunk) {
        let [_, name] = &chunk.words[..] else {
            self.warn(
                chunk,
                "vrrp_sync_group needs a name and nothing else: keepalived passes it over",
            );
            self.skip_block(|_, _| ());
            return;
        };
        if !self.group_names.insert(name.clone()) {
            self.warn(
                chunk,
                &format!(
                    "vrrp_sync_group {name} is there already: keepalived passes this one over"
                ),
            );
            self.skip_block(|_, _| ());
            return;
        }
        let index = self.groups.len();
        self.groups.push(GroupDraft {
            name: name.clone(),
            members: None,
            problem: None,
        });
        self.owner = Owner::Group(index);
        self.check_known(chunk, &chunk.words[1..]);
        let mut block = Keywords::default();
        while let Some(chunk) = self.next_keyword(&mut block) {
            match keyword(&chunk) {
                "group" if self.groups[index].members.is_some() => {
                    self.refuse(&chunk, "a second group block: keepalived passes it over and ends the sync group with it");
                    self.skip_block(|_, _| ());
                    break;
                }
                "group" => {
                    let mut members = Vec::new();
                    self.each_value(|this, entry| {
                        if this.check_known(entry, &entry.words) {
                            members.extend(entry.words.iter().cloned());
                        }
                    });
                    // An empty block counts as none.
                    self.groups[index].members = (!members.is_empty()).then_some(members);
                }
                keyword if NESTED_VALUES.contains(&keyword) => self.pass_values(),
                _ => {}
            }
        }
        self.owner = Owner::Nobody;
    }

    /// A block of keywords that says nothing about instances and groups.
    fn other_block(&mut self) {
        let mut block = Keywords::default();
        while let Some(chunk) = self.next_keyword(&mut block) {
            if NESTED_VALUES.contains(&keyword(&chunk)) && !self.next_is_no_block() {
                self.pass_values();
            }
        }
    }

    /// `track_file` and `group` are blocks in some places and plain keywords in others.
    fn next_is_no_block(&mut self) -> bool {
        self.peeked = self.next();
        self.peeked
            .as_ref()
            .is_none_or(|chunk| keyword(chunk) != "{")
    }

    /// The next keyword of a block of keywords; `None` at its end.
    fn next_keyword(&mut self, block: &mut Keywords) -> Option<Chunk> {
        loop {
            let chunk = self.next()?;
            let first = !std::mem::replace(&mut block.begun, true);
            match (keyword(&chunk), first) {
                ("{", true) => {}
                ("{", false) => self.refuse(
                    &chunk,
                    "a block that keepalived doesn't know here: its '}' ends the block around it",
                ),
                ("}", _) => return None,
                (_, true) => {
                    self.refuse(&chunk, "a block without a '{'");
                    return Some(chunk);
                }
                (_, false) => return Some(chunk),
            }
        }
    }

    fn each_value(&mut self, mut handle: impl FnMut(&mut Self, &Chunk)) {
        let mut block = Values::default();
        while let Some(entry) = self.next_value(&mut block) {
            handle(self, &entry);
        }
    }

    fn pass_values(&mut self) {
        self.each_value(|_, _| ());
    }

    /// The next line of a block of values; `None` at its end, which is the first `}`.
    fn next_value(&mut self, block: &mut Values) -> Option<Chunk> {
        loop {
            let chunk = self.next()?;
            let first = !std::mem::replace(&mut block.begun, true);
            match keyword(&chunk) {
                "{" if first => {}
                "{" => self.refuse(&chunk, "a '{' inside a block of values"),
                "}" => return None,
                _ => {
                    if first {
                        self.refuse(&chunk, "a block without a '{'");
                    }
                    return Some(chunk);
                }
            }
        }
    }

    /// Passes over a block as keepalived does when it wants none of it, by counting braces. What
    /// isn't followed by a `{` has no block. `look_at` gets each line, and how many blocks are open
    /// there.
    fn skip_block(&mut self, mut look_at: impl FnMut(usize, &[String])) {
        if self.next_is_no_block() {
            return;
        }
        self.peeked = None;
        let mut depth = 1;
        while let Some(chunk) = self.next() {
            for word in &chunk.words {
                match word.as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    return;
                }
            }
            look_at(depth, &chunk.words);
        }
    }

    /// The next chunk, whose notices go to the block that it was read for.
    fn next(&mut self) -> Option<Chunk> {
        if self.peeked.is_some() {
            return self.peeked.take();
        }
        let chunk = self.lines.next_chunk();
        for notice in self.lines.take_notices() {
            let problem = problem(&notice.place, &notice.message);
            if notice.weight != Weight::Remark {
                self.blame(&problem);
            }
            if notice.weight == Weight::Stop {
                self.warnings.insert(0, problem);
            } else {
                self.push_warning(problem);
            }
        }
        chunk
    }

    /// Whether all words of a line that matters are known; refuses the block otherwise.
    fn check_known(&mut self, chunk: &Chunk, words: &[String]) -> bool {
        if chunk.unclosed_quote {
            self.refuse(chunk, "a double quote that is never closed");
            return false;
        }
        for word in words {
            if word.contains(UNKNOWN) {
                self.refuse(
                    chunk,
                    "depends on $_RANDOM, $_ENV or $_INSTANCE, which only keepalived knows",
                );
                return false;
            }
            if let Some(name) = definitions::undefined(word) {
                self.refuse(chunk, &format!("${name} is not defined here"));
                return false;
            }
        }
        true
    }

    /// Warns, and refuses the instance or group whose block it is.
    fn refuse(&mut self, chunk: &Chunk, message: &str) {
        let problem = problem(&chunk.place, message);
        self.blame(&problem);
        self.push_warning(problem);
    }

    fn blame(&mut self, problem: &Problem) {
        let slot = match self.owner {
            Owner::Nobody => return,
            Owner::Instance(index) => &mut self.instances[index].problem,
            Owner::Group(index) => &mut self.groups[index].problem,
        };
        // The first one is the one to mend first.
        slot.get_or_insert_with(|| problem.clone());
    }

    fn warn(&mut self, chunk: &Chunk, message: &str) {
        if self.warnings.len() < WARNINGS_MAX {
            self.push_warning(problem(&chunk.place, message));
        }
    }

    fn push_warning(&mut self, problem: Problem) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(problem);
        }
    }

    fn finish(mut self) -> Configuration {
        let mut configuration = Configuration::default();
        self.finish_groups(&mut configuration);
        for (draft, problem) in Draft::finish_all(self.instances, &self.globals) {
            match problem {
                None => configuration.instances.push(draft),
                Some(problem) => configuration.refused.push(Refused {
                    kind: INSTANCE,
                    name: draft.name,
                    problem,
                }),
            }
        }
        configuration.real_servers = self.real_servers;
        configuration.warnings = self.warnings;
        configuration
    }

    /// Groups keep the members that exist and are in no group before them; without any they are
    /// dropped.
    fn finish_groups(&mut self, configuration: &mut Configuration) {
        let mut grouped = HashSet::new();
        for draft in std::mem::take(&mut self.groups) {
            let mut members = draft.members.unwrap_or_default();
            members.retain(|member| {
                self.instance_by_name.contains_key(member) && grouped.insert(member.clone())
            });
            if let Some(problem) = draft.problem {
                configuration.refused.push(Refused {
                    kind: GROUP,
                    name: draft.name,
                    problem,
                });
            } else if !members.is_empty() {
                configuration.groups.push(Group {
                    name: draft.name,
                    instances: members,
                });
            }
        }
    }
}

fn keyword(chunk: &Chunk) -> &str {
    chunk.words.first().map_or("", String::as_str)
}

fn problem(place: &Place, message: &str) -> Problem {
    Problem {
        file: place.file.to_path_buf(),
        line: place.line,
        // It goes to terminals and logs.
        message: message.replace(char::is_control, "?"),
    }
}

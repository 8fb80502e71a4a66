//! Blocks and keywords: chunks in, instances and groups out.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::definitions::{self, UNKNOWN};
use super::hook::{Hook, ScriptsDraft};
use super::instance::{Draft, Globals};
use super::lines::{Chunk, Lines, Place, Weight};
use super::virtual_server::VirtualServer;
use super::{Block, Configuration, GROUP, Group, INSTANCE, IdSource, Problem};

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
const VALUES: [&str; 3] = [
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

/// Keywords at the top for which keepalived stops when nothing follows them.
const NAMED_BLOCKS: [&str; 2] = ["vrrp_script", "vrrp_track_process"];

/// Keywords of instances, and of the blocks in them, for which keepalived stops when nothing
/// follows them.
const NEED_PARAMETER: [&str; 29] = [
    "advert_int",
    "auth_pass",
    "auth_type",
    "debug",
    "down_timer_adverts",
    "garp_lower_prio_delay",
    "garp_lower_prio_repeat",
    "garp_master_delay",
    "garp_master_refresh",
    "garp_master_refresh_repeat",
    "garp_master_repeat",
    "interface",
    "lvs_sync_daemon_interface",
    "mcast_dst_ip",
    "mcast_src_ip",
    "notify",
    "notify_backup",
    "notify_fault",
    "notify_master",
    "notify_master_rx_lower_pri",
    "notify_stop",
    "preempt_delay",
    "priority",
    "state",
    "unicast_src_ip",
    "unicast_ttl",
    "version",
    "virtual_router_id",
    "vrf",
];

/// The scripts of an instance.
const INSTANCE_HOOKS: [&str; 7] = [
    "notify",
    "notify_backup",
    "notify_deleted",
    "notify_fault",
    "notify_master",
    "notify_master_rx_lower_pri",
    "notify_stop",
];

/// The scripts of a sync group.
const GROUP_HOOKS: [&str; 5] = [
    "notify",
    "notify_backup",
    "notify_fault",
    "notify_master",
    "notify_stop",
];

/// What becomes of an instance when a line of it can't be known.
#[derive(Clone, Copy)]
enum Matter {
    /// It says which virtual IPs there are, or where: the instance can't be relied on.
    Much,
    /// The virtual IPs are known without it.
    Little,
}

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
    hooks: Vec<Hook>,
    trouble: Trouble,
}

/// Why a block can't be relied on.
#[derive(Default)]
pub(super) struct Trouble {
    refused: Option<Problem>,
    /// The same, but only if our configuration id is not keepalived's.
    doubtful: Option<Problem>,
}

impl Trouble {
    fn settle(self, foreign_ids: Option<&Problem>) -> Option<Problem> {
        let doubtful = self.doubtful.zip(foreign_ids);
        self.refused.or_else(|| {
            doubtful.map(|(problem, foreign)| Problem {
                message: format!("{}, while this file {}", problem.message, foreign.message),
                ..problem
            })
        })
    }
}

pub(super) struct Interpreter<'a> {
    lines: Lines<'a>,
    id_source: IdSource,
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
    scripts: ScriptsDraft,
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
    pub(super) fn new(lines: Lines<'a>, id_source: IdSource) -> Self {
        Self {
            lines,
            id_source,
            peeked: None,
            owner: Owner::Nobody,
            ended: None,
            globals: Globals::default(),
            instances: Vec::new(),
            instance_by_name: HashMap::new(),
            groups: Vec::new(),
            group_names: HashSet::new(),
            real_servers: Vec::new(),
            scripts: ScriptsDraft::default(),
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
                self.skip_block(|this, depth, chunk| {
                    if depth == 1 {
                        this.globals.keyword(&chunk.words);
                        if let Err(ignored) = this.scripts.keyword(chunk) {
                            this.warn(chunk, &ignored);
                        }
                    }
                });
            }
            "virtual_server" => {
                let mut server = VirtualServer::default();
                self.skip_block(|_, depth, chunk| server.keyword(depth, &chunk.words));
                self.real_servers.extend(server.without_nat());
            }
            _ if SKIPPED.contains(&keyword) => self.skip_block(|_, _, _| ()),
            _ if OTHER_BLOCKS.contains(&keyword) => {
                if NAMED_BLOCKS.contains(&keyword) && chunk.words.len() < 2 {
                    self.stops(chunk, &format!("{keyword} without a name"));
                }
                self.other_block();
            }
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
            _ if VALUES.contains(&keyword) || Draft::KEYWORDS.contains(&keyword) => {
                self.owner = self.ended.map_or(Owner::Nobody, Owner::Instance);
                self.warn(
                    chunk,
                    &format!(
                        "{keyword} behind the end of the block: keepalived passes it over; a '}}' has ended the block too early"
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
            self.skip_block(|_, _, _| ());
            return;
        };
        if self.instance_by_name.contains_key(name) {
            self.warn(
                chunk,
                &format!("vrrp_instance {name} is there already: keepalived passes this one over"),
            );
            self.skip_block(|_, _, _| ());
            return;
        }
        let index = self.instances.len();
        self.instances.push(Draft::new(name, chunk.place.clone()));
        self.instance_by_name.insert(name.clone(), index);
        self.owner = Owner::Instance(index);
        self.know_name(chunk);
        let mut block = Keywords::default();
        while let Some(chunk) = self.next_keyword(&mut block) {
            self.instance_keyword(index, &chunk);
        }
        self.owner = Owner::Nobody;
        self.ended = Some(index);
    }

    fn instance_keyword(&mut self, index: usize, chunk: &Chunk) {
        let keyword = keyword(chunk);
        self.check_parameter(chunk);
        if VALUES.contains(&keyword) && chunk.words.len() > 1 {
            let extra = chunk.words[1..].join(" ");
            self.warn(
                chunk,
                &format!("{keyword} is a block: keepalived passes over {extra}"),
            );
        }
        match keyword {
            "virtual_ipaddress" => self.each_value(|this, entry| {
                this.apply(entry, index, Matter::Much, Draft::virtual_ipaddress);
            }),
            "virtual_ipaddress_excluded" => self.each_value(|this, entry| {
                this.apply(
                    entry,
                    index,
                    Matter::Much,
                    Draft::virtual_ipaddress_excluded,
                );
            }),
            "unicast_peer" => {
                self.instances[index].unicast();
                self.each_value(|this, entry| {
                    this.apply(entry, index, Matter::Little, Draft::unicast_peer);
                });
            }
            _ if NESTED_VALUES.contains(&keyword) => self.pass_values(),
            // The second one is of keepalived 2.4.
            "authentication" | "auth_hmac" => self.other_block(),
            _ if Draft::KEYWORDS.contains(&keyword) => {
                let matter = if Draft::PLACES.contains(&keyword) {
                    Matter::Much
                } else {
                    Matter::Little
                };
                self.apply(chunk, index, matter, Draft::keyword);
            }
            // A shell may know a $NAME in it that keepalived does not.
            _ if INSTANCE_HOOKS.contains(&keyword) => {
                if let Err(ignored) = Hook::add(&mut self.instances[index].hooks, chunk) {
                    self.warn(chunk, &ignored);
                }
            }
            _ => {
                self.check_defined(chunk, Matter::Little, "takes it as it stands");
            }
        }
    }

    /// Warns of a keyword without what has to follow it.
    fn check_parameter(&mut self, chunk: &Chunk) {
        if let [keyword] = &chunk.words[..]
            && NEED_PARAMETER.contains(&keyword.as_str())
        {
            self.stops(chunk, &format!("{keyword} without a parameter"));
        }
    }

    /// Hands a line to the instance, unless it holds what can't be known.
    fn apply(
        &mut self,
        chunk: &Chunk,
        index: usize,
        matter: Matter,
        handler: fn(&mut Draft, &[String]) -> Result<(), String>,
    ) {
        if !self.is_known(chunk, matter) {
            return;
        }
        let is_undefined_dev = |pair: &[String]| pair[0] == "dev" && pair[1].contains('$');
        if chunk.words.windows(2).any(is_undefined_dev) {
            let message = "is on an interface that is not defined here: keepalived does not start";
            let problem = self.problem(&chunk.place, message);
            self.blame(Problem {
                stops: true,
                ..problem
            });
            return;
        }
        let applied = handler(&mut self.instances[index], &chunk.words);
        let what_keepalived_does = match applied {
            Ok(()) => "takes it as it stands",
            Err(_) => "passes it over",
        };
        if !self.check_defined(chunk, matter, what_keepalived_does)
            && let Err(passed_over) = applied
        {
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
            self.skip_block(|_, _, _| ());
            return;
        };
        if !self.group_names.insert(name.clone()) {
            self.warn(
                chunk,
                &format!(
                    "vrrp_sync_group {name} is there already: keepalived passes this one over"
                ),
            );
            self.skip_block(|_, _, _| ());
            return;
        }
        let index = self.groups.len();
        self.groups.push(GroupDraft {
            name: name.clone(),
            members: None,
            hooks: Vec::new(),
            trouble: Trouble::default(),
        });
        self.owner = Owner::Group(index);
        self.know_name(chunk);
        let mut block = Keywords::default();
        while let Some(chunk) = self.next_keyword(&mut block) {
            match keyword(&chunk) {
                "group" if self.groups[index].members.is_some() => {
                    self.warn(&chunk, "a second group block: keepalived passes it over and ends the sync group with it");
                    self.skip_block(|_, _, _| ());
                    break;
                }
                "group" => {
                    let mut members = Vec::new();
                    self.each_value(|this, entry| {
                        if this.know_name(entry) {
                            members.extend(entry.words.iter().cloned());
                        }
                    });
                    // An empty block counts as none.
                    self.groups[index].members = (!members.is_empty()).then_some(members);
                }
                keyword if NESTED_VALUES.contains(&keyword) => self.pass_values(),
                keyword if GROUP_HOOKS.contains(&keyword) => {
                    self.check_parameter(&chunk);
                    if let Err(ignored) = Hook::add(&mut self.groups[index].hooks, &chunk) {
                        self.warn(&chunk, &ignored);
                    }
                }
                _ => {}
            }
        }
        self.owner = Owner::Nobody;
    }

    /// A block of keywords that says nothing about instances and groups.
    fn other_block(&mut self) {
        let mut block = Keywords::default();
        while let Some(chunk) = self.next_keyword(&mut block) {
            self.check_parameter(&chunk);
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
                ("{", false) => self.warn(
                    &chunk,
                    "a block that keepalived doesn't know here: its '}' ends the block around it",
                ),
                ("}", _) => return None,
                (_, true) => {
                    self.warn(&chunk, "a block without a '{'");
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
                "{" => self.warn(
                    &chunk,
                    "a '{' inside a block of values: the first '}' ends the block",
                ),
                "}" => return None,
                _ => {
                    if first {
                        self.warn(
                            &chunk,
                            "a block without a '{': keepalived takes all lines up to the next '}' for its values",
                        );
                    }
                    return Some(chunk);
                }
            }
        }
    }

    /// Passes over a block as keepalived does when it wants none of it, by counting braces. What
    /// isn't followed by a `{` has no block. `look_at` gets each line, and how many blocks are open
    /// there.
    fn skip_block(&mut self, mut look_at: impl FnMut(&mut Self, usize, &Chunk)) {
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
            look_at(self, depth, &chunk);
        }
    }

    /// The next chunk, whose notices go to the block that it was read for.
    fn next(&mut self) -> Option<Chunk> {
        if self.peeked.is_some() {
            return self.peeked.take();
        }
        let chunk = self.lines.next_chunk();
        for notice in self.lines.take_notices() {
            let problem = self.problem(&notice.place, &notice.message);
            match notice.weight {
                Weight::Remark => self.push_warning(problem),
                Weight::Doubtful => self.doubt(problem),
                Weight::Uncertain => self.blame(problem),
                // What follows is lost, too: it is the first thing to tell.
                Weight::Stop => {
                    self.warnings.insert(0, problem.clone());
                    if let Some(trouble) = self.trouble() {
                        trouble.refused.get_or_insert(problem);
                    }
                }
            }
        }
        chunk
    }

    /// Whether a line says what only keepalived knows; refuses the block if so, and that matters.
    fn is_known(&mut self, chunk: &Chunk, matter: Matter) -> bool {
        let unknown = chunk.words.iter().any(|word| word.contains(UNKNOWN));
        if unknown {
            let message = "depends on $_RANDOM, $_ENV or $_INSTANCE, which only keepalived knows";
            match matter {
                Matter::Much => self.refuse(chunk, message),
                Matter::Little => self.warn(chunk, message),
            }
        }
        !unknown
    }

    /// Warns of a `$NAME` that is not defined; whether there was one.
    fn check_defined(&mut self, chunk: &Chunk, matter: Matter, keepalived: &str) -> bool {
        let mut words = chunk.words.iter();
        let Some(name) = words.find_map(|word| definitions::undefined(word)) else {
            return false;
        };
        let message = format!("${name} is not defined here: keepalived {keepalived}");
        let problem = self.problem(&chunk.place, &message);
        match matter {
            Matter::Much => self.doubt(problem),
            Matter::Little => self.push_warning(problem),
        }
        true
    }

    /// Whether a name can be used.
    fn know_name(&mut self, chunk: &Chunk) -> bool {
        self.check_defined(chunk, Matter::Much, "takes it as it stands");
        self.is_known(chunk, Matter::Much)
    }

    /// Refuses the instance or group whose block it is.
    fn refuse(&mut self, chunk: &Chunk, message: &str) {
        let problem = self.problem(&chunk.place, message);
        self.blame(problem);
    }

    /// What refuses the block; only the first such thing, which is the one to mend first. Where
    /// there is no block, it is a warning like any other.
    fn blame(&mut self, problem: Problem) {
        match self.trouble() {
            Some(Trouble {
                refused: slot @ None,
                ..
            }) => *slot = Some(problem),
            _ => self.push_warning(problem),
        }
    }

    /// A warning, and what refuses the block if our configuration id is not keepalived's.
    fn doubt(&mut self, problem: Problem) {
        if let Some(trouble) = self.trouble() {
            trouble.doubtful.get_or_insert_with(|| problem.clone());
        }
        self.push_warning(problem);
    }

    fn trouble(&mut self) -> Option<&mut Trouble> {
        match self.owner {
            Owner::Nobody => None,
            Owner::Instance(index) => Some(&mut self.instances[index].trouble),
            Owner::Group(index) => Some(&mut self.groups[index].trouble),
        }
    }

    fn block(&self) -> Option<Block> {
        let (kind, name) = match self.owner {
            Owner::Nobody => return None,
            Owner::Instance(index) => (INSTANCE, self.instances[index].name()),
            Owner::Group(index) => (GROUP, self.groups[index].name.as_str()),
        };
        let name = name.to_owned();
        Some(Block { kind, name })
    }

    fn problem(&self, place: &Place, message: &str) -> Problem {
        Problem {
            file: place.file.to_path_buf(),
            line: place.line,
            block: self.block(),
            message: message.replace(UNKNOWN, "?"),
            stops: false,
        }
    }

    /// A warning of what keepalived itself stops for.
    fn stops(&mut self, chunk: &Chunk, message: &str) {
        let message = format!("{message}: keepalived does not start");
        let problem = self.problem(&chunk.place, &message);
        self.push_warning(Problem {
            stops: true,
            ..problem
        });
    }

    fn warn(&mut self, chunk: &Chunk, message: &str) {
        if self.warnings.len() < WARNINGS_MAX {
            let problem = self.problem(&chunk.place, message);
            self.push_warning(problem);
        }
    }

    fn push_warning(&mut self, problem: Problem) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(problem);
        }
    }

    fn finish(mut self) -> Configuration {
        let foreign_ids = self.foreign_ids();
        let mut configuration = Configuration::default();
        self.finish_groups(&mut configuration, foreign_ids.as_ref());
        let owners = (0..self.instances.len()).map(Owner::Instance);
        for owner in owners {
            self.owner = owner;
            self.check_instance();
        }
        for (instance, trouble) in Draft::finish_all(self.instances, &self.globals) {
            match trouble.settle(foreign_ids.as_ref()) {
                None => configuration.instances.push(instance),
                Some(problem) => configuration.refused.push(problem),
            }
        }
        configuration.real_servers = self.real_servers;
        configuration.scripts = self.scripts.finish();
        configuration.files = self.lines.into_files();
        configuration.warnings = self.warnings;
        if let Some(foreign) = &foreign_ids {
            configuration.warnings.insert(0, foreign.clone());
        }
        configuration.foreign_ids = foreign_ids;
        configuration
    }

    /// Our configuration id may be another than keepalived's.
    fn foreign_ids(&self) -> Option<Problem> {
        if self.id_source == IdSource::Given {
            return None;
        }
        let (place, message) = self.lines.foreign_ids()?;
        Some(Problem {
            file: place.file.to_path_buf(),
            line: place.line,
            block: None,
            message,
            stops: false,
        })
    }

    /// Warns of what an instance lacks.
    fn check_instance(&mut self) {
        let Owner::Instance(index) = self.owner else {
            return;
        };
        let place = self.instances[index].place.clone();
        for (message, stops) in self.instances[index].lacks() {
            let problem = self.problem(&place, message);
            self.push_warning(Problem { stops, ..problem });
        }
        if !self.instances[index].has_addresses() {
            let problem = self.problem(&place, "has no virtual IP: there is nothing to announce");
            self.doubt(problem);
        }
    }

    /// Groups keep the members that exist and are in no group before them; without any they are
    /// dropped.
    fn finish_groups(&mut self, configuration: &mut Configuration, foreign_ids: Option<&Problem>) {
        let mut grouped = HashSet::new();
        for draft in std::mem::take(&mut self.groups) {
            let mut members = draft.members.unwrap_or_default();
            members.retain(|member| {
                self.instance_by_name.contains_key(member) && grouped.insert(member.clone())
            });
            if let Some(problem) = draft.trouble.settle(foreign_ids) {
                configuration.refused.push(problem);
            } else if !members.is_empty() {
                configuration.groups.push(Group {
                    name: draft.name,
                    instances: members,
                    hooks: draft.hooks,
                });
            }
        }
    }
}

fn keyword(chunk: &Chunk) -> &str {
    chunk.words.first().map_or("", String::as_str)
}

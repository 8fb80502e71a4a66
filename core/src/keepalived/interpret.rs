//! Interprets chunks as blocks and keywords: instances and groups.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::definitions::{self, UNKNOWN};
use super::hook::{Hook, ScriptsDraft};
use super::instance::{Draft, Globals};
use super::lines::{Chunk, Lines, Place, Severity};
use super::trouble::Trouble;
use super::virtual_server::VirtualServer;
use super::{Block, Configuration, GROUP, Group, INSTANCE, IdSource, Problem};

/// The most warnings: nobody reads more.
const WARNINGS_MAX: usize = 1000;

/// Top-level keywords with a block of keywords that do not concern us.
const OTHER_BLOCKS: [&str; 7] = [
    "bfd_instance",
    "garp_group",
    "track_file",
    "track_group",
    "vrrp_script",
    "vrrp_track_file",
    "vrrp_track_process",
];

/// Top-level keywords with a block of values, one per chunk.
const OTHER_VALUES: [&str; 5] = [
    "interface_up_down_delays",
    "linkbeat_interfaces",
    "static_ipaddress",
    "static_routes",
    "static_rules",
];

/// Top-level keywords for keepalived's other processes. The VRRP process skips their blocks by
/// counting braces.
const SKIPPED: [&str; 2] = ["SSL", "virtual_server_group"];

/// Keywords of instances with a block of values that concern us.
const VALUES: [&str; 3] = [
    "unicast_peer",
    "virtual_ipaddress",
    "virtual_ipaddress_excluded",
];

/// Keywords inside a block with a block of values.
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

/// Top-level keywords without whose parameter keepalived does not start.
const NAMED_BLOCKS: [&str; 2] = ["vrrp_script", "vrrp_track_process"];

/// Keywords of instances, and of their blocks, without whose parameter keepalived does not start.
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

/// The script keywords of an instance.
const INSTANCE_HOOKS: [&str; 7] = [
    "notify",
    "notify_backup",
    "notify_deleted",
    "notify_fault",
    "notify_master",
    "notify_master_rx_lower_pri",
    "notify_stop",
];

/// The script keywords of a sync group.
const GROUP_HOOKS: [&str; 5] = [
    "notify",
    "notify_backup",
    "notify_fault",
    "notify_master",
    "notify_stop",
];

/// What keepalived does with an undefined `$NAME`.
const LEAVES_IT: &str = "leaves it as it is";

/// What a line determines, and so what follows if its value is unknown.
#[derive(Clone, Copy)]
enum Determines {
    /// The virtual IPs or their interfaces: the instance is refused.
    Vips,
    /// Nothing about the virtual IPs: a warning.
    Other,
}

/// The block that the chunks, and problems with them, belong to.
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

pub(super) struct Interpreter<'a> {
    lines: Lines<'a>,
    id_source: IdSource,
    peeked: Option<Chunk>,
    owner: Owner,
    /// The last instance. If keywords of an instance follow its end, it has ended too early.
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
            _ if OTHER_VALUES.contains(&keyword) => self.skip_values(),
            // keepalived has other keywords here; none of them has a block.
            "{" => {
                self.ended = None;
                self.warn(
                    chunk,
                    "a '{' without a keyword: keepalived ignores it, and reads the block",
                );
            }
            "}" => self.warn(chunk, "a '}' too many"),
            _ if VALUES.contains(&keyword) || Draft::KEYWORDS.contains(&keyword) => {
                self.owner = self.ended.map_or(Owner::Nobody, Owner::Instance);
                self.warn(
                    chunk,
                    &format!(
                        "{keyword} after the end of the block: keepalived ignores it; an earlier '}}' ended the block"
                    ),
                );
                self.owner = Owner::Nobody;
            }
            _ => {}
        }
    }

    /// The name of a new instance or group. If keepalived ignores the block, this skips it and
    /// returns `None`.
    fn new_name(&mut self, chunk: &Chunk, exists: fn(&Self, &str) -> bool) -> Option<String> {
        let keyword = keyword(chunk);
        let ignored = match &chunk.words[..] {
            [_, name] if !exists(self, name) => return Some(name.clone()),
            [_, name] => format!("a second {keyword} {name}: keepalived ignores it"),
            _ => format!("{keyword} needs a name and nothing else: keepalived ignores it"),
        };
        self.warn(chunk, &ignored);
        self.skip_block(|_, _, _| ());
        None
    }

    /// `vrrp_instance NAME { … }`
    fn vrrp_instance(&mut self, chunk: &Chunk) {
        let exists = |this: &Self, name: &str| this.instance_by_name.contains_key(name);
        let Some(name) = self.new_name(chunk, exists) else {
            return;
        };
        let index = self.instances.len();
        self.instances.push(Draft::new(&name, chunk.place.clone()));
        self.instance_by_name.insert(name, index);
        self.owner = Owner::Instance(index);
        self.is_name_known(chunk);
        let mut begun = false;
        while let Some(chunk) = self.next_keyword(&mut begun) {
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
                this.apply(entry, index, Determines::Vips, Draft::virtual_ipaddress);
            }),
            "virtual_ipaddress_excluded" => self.each_value(|this, entry| {
                let handler = Draft::virtual_ipaddress_excluded;
                this.apply(entry, index, Determines::Vips, handler);
            }),
            "unicast_peer" => {
                self.instances[index].unicast();
                self.each_value(|this, entry| {
                    this.apply(entry, index, Determines::Other, Draft::unicast_peer);
                });
            }
            _ if NESTED_VALUES.contains(&keyword) => self.skip_values(),
            // keepalived 2.4 has auth_hmac.
            "authentication" | "auth_hmac" => self.other_block(),
            _ if Draft::KEYWORDS.contains(&keyword) => {
                let determines = if Draft::PLACES.contains(&keyword) {
                    Determines::Vips
                } else {
                    Determines::Other
                };
                self.apply(chunk, index, determines, Draft::keyword);
            }
            // No check for undefined $NAMEs: a shell may define them.
            _ if INSTANCE_HOOKS.contains(&keyword) => {
                if let Err(ignored) = Hook::add(&mut self.instances[index].hooks, chunk) {
                    self.warn(chunk, &ignored);
                }
            }
            _ => {
                self.has_undefined(chunk, Determines::Other, LEAVES_IT);
            }
        }
    }

    /// Warns of a keyword that lacks its parameter.
    fn check_parameter(&mut self, chunk: &Chunk) {
        if let [keyword] = &chunk.words[..]
            && NEED_PARAMETER.contains(&keyword.as_str())
        {
            self.stops(chunk, &format!("{keyword} without a parameter"));
        }
    }

    /// Applies a line to the instance, unless it contains an unknown value.
    fn apply(
        &mut self,
        chunk: &Chunk,
        index: usize,
        determines: Determines,
        handler: fn(&mut Draft, &[String]) -> Result<(), String>,
    ) {
        if !self.is_known(chunk, determines) {
            return;
        }
        let is_undefined_dev = |pair: &[String]| pair[0] == "dev" && pair[1].contains('$');
        if chunk.words.windows(2).any(is_undefined_dev) {
            let message = "is on an interface that is not defined here: keepalived does not start";
            let problem = self.problem(&chunk.place, message);
            self.refuse(Problem {
                stops: true,
                ..problem
            });
            return;
        }
        let applied = handler(&mut self.instances[index], &chunk.words);
        let what_keepalived_does = match applied {
            Ok(()) => LEAVES_IT,
            Err(_) => "passes it over",
        };
        if !self.has_undefined(chunk, determines, what_keepalived_does)
            && let Err(ignored) = applied
        {
            self.warn(chunk, &format!("{ignored}: keepalived ignores it"));
        }
    }

    /// `vrrp_sync_group NAME { group { INSTANCE … } … }`
    fn vrrp_sync_group(&mut self, chunk: &Chunk) {
        let exists = |this: &Self, name: &str| this.group_names.contains(name);
        let Some(name) = self.new_name(chunk, exists) else {
            return;
        };
        let index = self.groups.len();
        self.group_names.insert(name.clone());
        self.groups.push(GroupDraft {
            name,
            members: None,
            hooks: Vec::new(),
            trouble: Trouble::default(),
        });
        self.owner = Owner::Group(index);
        self.is_name_known(chunk);
        let mut begun = false;
        while let Some(chunk) = self.next_keyword(&mut begun) {
            match keyword(&chunk) {
                "group" if self.groups[index].members.is_some() => {
                    self.warn(
                        &chunk,
                        "a second group block: keepalived ignores it, and ends the sync group",
                    );
                    self.skip_block(|_, _, _| ());
                    break;
                }
                "group" => {
                    let mut members = Vec::new();
                    self.each_value(|this, entry| {
                        if this.is_name_known(entry) {
                            members.extend(entry.words.iter().cloned());
                        }
                    });
                    // An empty block counts as none.
                    self.groups[index].members = (!members.is_empty()).then_some(members);
                }
                keyword if NESTED_VALUES.contains(&keyword) => self.skip_values(),
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

    /// A block of keywords that does not concern instances and groups.
    fn other_block(&mut self) {
        let mut begun = false;
        while let Some(chunk) = self.next_keyword(&mut begun) {
            self.check_parameter(&chunk);
            // `track_file` and `group` are blocks in some places and plain keywords in others.
            if NESTED_VALUES.contains(&keyword(&chunk)) && self.is_block_next() {
                self.skip_values();
            }
        }
    }

    fn is_block_next(&mut self) -> bool {
        self.peeked = self.next();
        self.peeked
            .as_ref()
            .is_some_and(|chunk| keyword(chunk) == "{")
    }

    /// The next keyword of a block of keywords; `None` at its end.
    fn next_keyword(&mut self, begun: &mut bool) -> Option<Chunk> {
        loop {
            let chunk = self.next()?;
            let first = !std::mem::replace(begun, true);
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

    /// Handles each line of a block of values, up to the first `}`.
    fn each_value(&mut self, mut handle: impl FnMut(&mut Self, &Chunk)) {
        let mut first = true;
        while let Some(chunk) = self.next() {
            match keyword(&chunk) {
                "{" if first => {}
                "{" => self.warn(
                    &chunk,
                    "a '{' inside a block of values: the first '}' ends the block",
                ),
                "}" => return,
                _ => {
                    if first {
                        self.warn(
                            &chunk,
                            "a block without a '{': keepalived reads all lines up to the next '}' as its values",
                        );
                    }
                    handle(self, &chunk);
                }
            }
            first = false;
        }
    }

    fn skip_values(&mut self) {
        self.each_value(|_, _| ());
    }

    /// Skips a block as keepalived does, by counting braces. Without a `{` there is no block.
    /// `look_at` gets each line, with the number of open blocks.
    fn skip_block(&mut self, mut look_at: impl FnMut(&mut Self, usize, &Chunk)) {
        if !self.is_block_next() {
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

    /// The next chunk. Notices on the way concern the current block.
    fn next(&mut self) -> Option<Chunk> {
        if self.peeked.is_some() {
            return self.peeked.take();
        }
        let chunk = self.lines.next_chunk();
        for notice in self.lines.take_notices() {
            let problem = self.problem(&notice.place, &notice.message);
            match notice.severity {
                Severity::Warning => self.push_warning(problem),
                Severity::Doubtful => self.doubt(problem),
                Severity::Unknown => self.refuse(problem),
                // It explains whatever is missing, so it comes first.
                Severity::Stop => {
                    self.warnings.insert(0, problem.clone());
                    if let Some(trouble) = self.trouble() {
                        trouble.refused.get_or_insert(problem);
                    }
                }
            }
        }
        chunk
    }

    /// Whether we know all values of a line. If not, this warns or refuses the block.
    fn is_known(&mut self, chunk: &Chunk, determines: Determines) -> bool {
        let unknown = chunk.words.iter().any(|word| word.contains(UNKNOWN));
        if unknown {
            let message = "depends on $_RANDOM, $_ENV or $_INSTANCE, which only keepalived knows";
            let problem = self.problem(&chunk.place, message);
            match determines {
                Determines::Vips => self.refuse(problem),
                Determines::Other => self.push_warning(problem),
            }
        }
        !unknown
    }

    /// Whether a line has a `$NAME` that is not defined. If so, this warns.
    fn has_undefined(&mut self, chunk: &Chunk, determines: Determines, keepalived: &str) -> bool {
        let mut words = chunk.words.iter();
        let Some(name) = words.find_map(|word| definitions::undefined(word)) else {
            return false;
        };
        let message = format!("${name} is not defined here: keepalived {keepalived}");
        let problem = self.problem(&chunk.place, &message);
        match determines {
            Determines::Vips => self.doubt(problem),
            Determines::Other => self.push_warning(problem),
        }
        true
    }

    fn is_name_known(&mut self, chunk: &Chunk) -> bool {
        self.has_undefined(chunk, Determines::Vips, LEAVES_IT);
        self.is_known(chunk, Determines::Vips)
    }

    /// Refuses the current block. The first problem is the reason; later ones, and those outside
    /// blocks, are warnings.
    fn refuse(&mut self, problem: Problem) {
        match self.trouble() {
            Some(Trouble {
                refused: slot @ None,
                ..
            }) => *slot = Some(problem),
            _ => self.push_warning(problem),
        }
    }

    /// Warns, and refuses the current block if our configuration id is not keepalived's.
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

    /// Warns that keepalived does not start.
    fn stops(&mut self, chunk: &Chunk, message: &str) {
        let message = format!("{message}: keepalived does not start");
        let problem = self.problem(&chunk.place, &message);
        self.push_warning(Problem {
            stops: true,
            ..problem
        });
    }

    fn warn(&mut self, chunk: &Chunk, message: &str) {
        let problem = self.problem(&chunk.place, message);
        self.push_warning(problem);
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
        for index in 0..self.instances.len() {
            self.owner = Owner::Instance(index);
            self.check_instance(index);
        }
        for (instance, trouble) in Draft::finish_all(self.instances, &self.globals) {
            match trouble.settle(foreign_ids.as_ref()) {
                None => configuration.instances.push(instance),
                Some(problem) => configuration.refused.push(problem),
            }
        }
        configuration.real_servers = self.real_servers;
        configuration.scripts = self.scripts.finish();
        configuration.is_cut_short = self.lines.is_cut_short();
        (configuration.files, configuration.depends_on) = self.lines.into_files();
        configuration.warnings = self.warnings;
        if let Some(foreign) = &foreign_ids {
            configuration.warnings.insert(0, foreign.clone());
        }
        configuration.foreign_ids = foreign_ids;
        configuration
    }

    /// The sign that our assumed configuration id is not keepalived's.
    fn foreign_ids(&self) -> Option<Problem> {
        if self.id_source == IdSource::Given {
            return None;
        }
        let (place, message) = self.lines.foreign_ids()?;
        Some(self.problem(&place, &message))
    }

    /// Warns of what an instance lacks.
    fn check_instance(&mut self, index: usize) {
        let place = self.instances[index].place.clone();
        for (message, stops) in self.instances[index].lacks() {
            let problem = self.problem(&place, message);
            self.push_warning(Problem { stops, ..problem });
        }
        if !self.instances[index].has_addresses() {
            let problem = self.problem(&place, "has no virtual IP");
            self.doubt(problem);
        }
    }

    /// Keeps the members that exist and are in no earlier group, and drops groups without members.
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

//! The nodes' keepalived.conf, and the hooks that it names.

use std::path::Path;

use crate::common::{VIP, VIP6};

/// The group of the hooks, which sets their frames apart from keepalived's.
pub(crate) const GROUP: &str = "daemon";
pub(crate) const INSTANCES: [&str; 2] = ["VI_4", "VI_6"];

/// What hooks are made of.
pub(crate) struct Hooks<'a> {
    /// The lab's directory, which the program and its files are in.
    pub(crate) lab: &'a Path,
    pub(crate) program: &'a Path,
    /// The options that name its files.
    pub(crate) options: &'a str,
    /// Where its messages go.
    pub(crate) log: &'a Path,
    /// Where each event leaves a line.
    pub(crate) events: &'a Path,
    /// The file that is there in times of trouble.
    pub(crate) trouble: &'a Path,
}

impl Hooks<'_> {
    /// A hook that runs the program. Now and then, in times of trouble, it has next to no
    /// descriptors, nobody who reads its messages, a /run that is read-only, or one that is full.
    pub(crate) fn each_event(&self) -> String {
        format!(
            "exec 2>>{log}\n\
             echo \"$*\" >>{events}\n\
             to=stderr own=\n\
             if [ -e {trouble} ]; then\n\
             case $(($$ % 10)) in\n\
             0) ulimit -n 6 ;;\n\
             1) exec 2>/dev/full ;;\n\
             2) to=syslog own='mount -n -t tmpfs tmpfs /dev' ;;\n\
             3) own='mount -n -o remount,bind,ro /run' ;;\n\
             4) own='exec 9<{lab} && mount -n -t tmpfs -o size=64k tmpfs /run && mkdir {lab} \
             && mount -n -c --bind /proc/self/fd/9 {lab} && exec 9<&- \
             && ! cat /dev/zero >/run/full 2>/dev/null' ;;\n\
             esac\n\
             fi\n\
             set -- {program} --log $to {options} notify \"$@\"\n\
             [ -z \"$own\" ] || exec unshare --mount sh -c \"$own\"' && exec \"$@\"' sh \"$@\"\n\
             exec \"$@\"",
            log = self.log.display(),
            events = self.events.display(),
            trouble = self.trouble.display(),
            lab = self.lab.display(),
            program = self.program.display(),
            options = self.options,
        )
    }

    /// A hook that hands events on to a FIFO, as keepalived writes them there.
    pub(crate) fn to_fifo(&self, fifo: &Path) -> String {
        format!(
            "exec 2>>{log}\n\
             echo \"$*\" >>{events}\n\
             printf '%s \"%s\" %s %s\\n' \"$1\" \"$2\" \"$3\" \"${{4:-0}}\" >>{fifo}",
            log = self.log.display(),
            events = self.events.display(),
            fifo = fifo.display(),
        )
    }
}

/// A node's keepalived.conf: an instance of each family.
pub(crate) fn configuration(priority: u8, hook: &Path) -> String {
    let instance = |name: &str, id: u8, vip: &str| {
        format!(
            "vrrp_instance {name} {{\n interface eth0\n state BACKUP\n version 3\n \
             virtual_router_id {id}\n priority {priority}\n advert_int 0.1\n \
             garp_master_delay 60\n garp_master_repeat 1\n garp_lower_prio_repeat 0\n \
             virtual_ipaddress {{\n  {vip}\n }}\n notify \"{hook}\" root {GROUP}\n \
             notify_master_rx_lower_pri \"{hook} INSTANCE {name} MASTER_RX_LOWER_PRI\" root {GROUP}\n}}\n",
            hook = hook.display()
        )
    };
    instance(INSTANCES[0], 51, &format!("{VIP}/24"))
        + &instance(INSTANCES[1], 52, &format!("{VIP6}/64"))
}

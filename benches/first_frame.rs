//! How soon after its exec a hook's first frame is on the wire.
//!
//! A frame's moment is the kernel's time stamp at a peer, counted from the program's exec. All are
//! started as keepalived starts hooks: without a terminal, and with the environment of a service.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use vipherald_lab::{Host, Lab};

use crate::comparison::Comparison;
use crate::stopwatch;
use crate::tools::{
    SOON, announced, as_after_boot, batch, compile, end, is_gratuitous, quiet, since,
};

const VIP: &str = "10.9.0.254";
const TURNS: usize = 200;
/// Turns of what takes long.
const FEW_TURNS: usize = 20;
/// VIPs of the run with many: 10.9.1.0 to 10.9.1.255.
const MANY: usize = 256;

/// What people write into `notify_master` today.
const SHELL_HOOK: &str = "ip addr show dev eth0 | grep -q 'inet 10.9.0.254/' || exit 0\n\
                          arping -q -U -c 1 -I eth0 10.9.0.254";

const KEEPALIVED_CONF: &str = "global_defs {
    enable_script_security
    script_user root
}
vrrp_instance VI {
    interface eth0
    state BACKUP
    virtual_router_id 51
    priority 150
    advert_int 1
    virtual_ipaddress {
        10.9.0.254/32
    }
    notify \"/usr/libexec/keepalived/vipherald notify\"
}
";

pub(crate) fn run(program: &Path) {
    println!("### From exec to the first frame\n");
    first_frame(program);
    first_round(program);
    start_alone(program);
}

fn first_frame(program: &Path) {
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    owner.run(&format!("ip addr add {VIP}/32 dev eth0"));
    let keepalived_conf = lab.directory().join("keepalived.conf");
    fs::write(&keepalived_conf, KEEPALIVED_CONF).expect("the lab's directory is writable");
    let settings = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/vipherald.toml");

    let program = as_after_boot(program, "vipherald");
    let mut announce = hook(&owner, &program);
    announce.args(["--config", settings, "announce", VIP]);
    let mut notify = hook(&owner, &program);
    notify
        .args(["--config", settings, "--keepalived-conf"])
        .arg(&keepalived_conf)
        .args(["notify", "INSTANCE", "VI", "MASTER", "150"]);
    let installed = owner.command("arping");
    let arping = as_after_boot(installed.get_program().as_ref(), "arping");
    let mut arping = hook(&owner, arping);
    arping.args(["-q", "-U", "-c", "1", "-I", "eth0", VIP]);
    let habets = env::var("HABETS_ARPING").expect("`make bench` names Habets arping");
    let habets_arping = as_after_boot(&Path::new(&habets).join("arping"), "habets-arping");
    let mut habets_arping = hook(&owner, habets_arping);
    habets_arping
        .args(["-q", "-U", "-c", "1", "-i", "eth0", "-S", VIP, VIP])
        .env("LD_LIBRARY_PATH", &habets);
    let shell_hook = hook(&owner, lab.write_hook("hook.sh", SHELL_HOOK));
    let compiled = |name| as_after_boot(&compile(&lab, name), name);
    let mut floor_that_looks = hook(&owner, compiled("floor_that_looks"));
    floor_that_looks.arg(VIP);
    let mut floor = hook(&owner, compiled("floor"));
    floor.args(["eth0", &owner.mac().to_string(), VIP]);

    let mut comparison = Comparison::new(
        "exec to first frame",
        2,
        &[
            "announce VIP",
            "notify … MASTER",
            "iputils arping -U -c 1",
            "Habets arping -U -c 1",
            "shell: ip addr, grep, arping -U",
            "static C: looks first, sends",
            "static C: sends",
        ],
    );
    let mut hooks = [
        announce,
        notify,
        arping,
        habets_arping,
        shell_hook,
        floor_that_looks,
        floor,
    ];
    let capture = peer.capture();
    for _ in 0..TURNS {
        for (number, hook) in hooks.iter_mut().enumerate() {
            let (child, began) = stopwatch::start(hook);
            let frame = capture.wait_for(SOON, is_gratuitous);
            let frame = frame.unwrap_or_else(|| panic!("{hook:?} sends nothing"));
            assert_eq!(
                announced(&frame).map(|ip| ip.to_string()),
                Some(VIP.to_owned())
            );
            end(child);
            capture.frames();
            comparison.add(number, since(began, frame.time));
        }
    }
    comparison.print("first_frame");
}

fn first_round(program: &Path) {
    let lab = Lab::new();
    let (owner, peer) = (lab.host("owner"), lab.host("peer"));
    let vips: Vec<_> = (0..MANY).map(|n| format!("10.9.1.{n}")).collect();
    batch(
        &owner,
        vips.iter().map(|vip| format!("addr add {vip}/32 dev eth0")),
    );
    let mut announce = hook(&owner, program);
    announce.arg("announce").args(&vips);
    let mut shell = hook(&owner, "sh");
    let arping = |vip: &String| format!("arping -q -U -c 1 -I eth0 {vip} & ");
    shell
        .arg("-c")
        .arg(vips.iter().map(arping).collect::<String>());
    // A round of vipherald's is two frames for each VIP.
    let mut programs = [(announce, 2 * MANY), (shell, MANY)];
    let mut comparison = Comparison::new(
        "256 VIPs: exec to last frame of the first round",
        1,
        &["announce VIP…", "shell: for each arping -U -c 1 &"],
    );
    let capture = peer.capture();
    for _ in 0..FEW_TURNS {
        for (number, (command, frames)) in programs.iter_mut().enumerate() {
            let (child, began) = stopwatch::start(command);
            let mut seen = 0;
            let last = capture.wait_for(SOON, |frame| {
                seen += usize::from(is_gratuitous(frame));
                seen == *frames
            });
            end(child);
            capture.frames();
            comparison.add(number, since(began, last.expect("all come").time));
        }
    }
    comparison.print("first_frame");
}

/// What a start takes by itself: from exec to end, with nothing to send.
fn start_alone(program: &Path) {
    let lab = Lab::new();
    let host = lab.host("host");
    let program = as_after_boot(program, "vipherald");
    let mut absent = hook(&host, &program);
    absent.args(["announce", "--wait", "0", VIP]);
    let mut version = hook(&host, &program);
    version.arg("--version");
    let nothing = hook(&host, as_after_boot(&compile(&lab, "nothing"), "nothing"));
    let mut comparison = Comparison::new(
        "exec to end",
        2,
        &[
            "announce VIP, which is not here",
            "--version",
            "static C: does nothing",
        ],
    );
    let mut programs = [absent, version, nothing];
    for _ in 0..TURNS {
        for (number, program) in programs.iter_mut().enumerate() {
            comparison.add(number, stopwatch::run(program).took);
        }
    }
    comparison.print("first_frame");
}

/// A program as keepalived starts it, which systemd started.
fn hook(host: &Host, program: impl AsRef<Path>) -> Command {
    let mut command = host.command(program);
    let path = command
        .get_envs()
        .find_map(|(name, path)| path.filter(|_| name == "PATH"));
    let path = path.expect("a host's programs have a PATH").to_owned();
    command
        .env_clear()
        .env("PATH", path)
        .env("LANG", "C.UTF-8")
        .env("INVOCATION_ID", "0123456789abcdef0123456789abcdef")
        .env("SYSTEMD_EXEC_PID", "1");
    quiet(&mut command);
    command
}

//! What `show` says: what of keepalived.conf can be relied on, whether keepalived's events reach
//! vipherald, and whether keepalived has read what is there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured")]

mod common;
mod events;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use vipherald_lab::{Host, Lab, eventually};

use common::{Ended, SOON, VIP, run};
use events::{file, instance, with};

/// What `show` says of a configuration, in words and in JSON, and both exit statuses.
struct Shown {
    text: Ended,
    json: Value,
}

fn show(host: &Host, lab: &Lab, configuration: &str) -> Shown {
    let conf = file(lab, "conf", configuration);
    let text = run(host, &with(&conf, "show"));
    let parsed = run(host, &with(&conf, "show --json"));
    assert_eq!(text.status, parsed.status, "{text:?}");
    let json = serde_json::from_str(&parsed.stdout).unwrap();
    Shown { text, json }
}

impl Shown {
    fn assert_says(&self, status: i32, part: &str) {
        assert_eq!(self.text.status, status, "{:?}", self.text);
        assert!(self.text.stdout.contains(part), "{part}: {:?}", self.text);
    }
}

#[test]
fn a_refused_instance_is_shown_and_fails() {
    let lab = Lab::new();
    let a = lab.host("a");
    let text = instance("VI_1", 51, 100, &[VIP, "${_ENV VIP}"], "")
        + &instance("VI_2", 52, 100, &["10.9.0.101"], "");
    let shown = show(&a, &lab, &text);
    shown.assert_says(1, "conf:10: vrrp_instance VI_1: depends on $_RANDOM, $_ENV");
    shown.assert_says(1, "instance VI_2");
    let refused = &shown.json["refused"];
    assert_eq!(refused.as_array().unwrap().len(), 1, "{refused}");
    assert_eq!(refused[0]["kind"], "vrrp_instance");
    assert_eq!(refused[0]["name"], "VI_1");
    assert_eq!(refused[0]["line"], 10);
    assert_eq!(refused[0]["file"], json!(lab.directory().join("conf")));
    assert!(refused[0]["reason"].as_str().unwrap().contains("$_ENV"));
    assert_eq!(shown.json["instances"][0]["name"], "VI_2");
    // Nor is release silent about VIPs that it does not know.
    let conf = lab.directory().join("conf");
    let release = format!("release --all --keepalived-conf {}", conf.display());
    let ended = run(&a, &release).exits(0);
    ended.logs("conf:10: vrrp_instance VI_1: depends on $_RANDOM, $_ENV");
}

#[test]
fn show_fails_where_keepalived_does_not_start_and_warns_of_oddities() {
    let lab = Lab::new();
    let a = lab.host("a");
    let stops = format!(
        "vrrp_script {{\n}}\n{}",
        instance("VI_1", 51, 100, &[VIP], "")
    );
    let shown = show(&a, &lab, &stops);
    shown.assert_says(
        1,
        "conf:1: vrrp_script without a name: keepalived does not start",
    );
    assert_eq!(shown.json["warnings"][0]["stops"], true);
    assert_eq!(shown.json["warnings"][0]["kind"], Value::Null);
    assert_eq!(shown.json["refused"], json!([]));

    let odd = instance("VI_1", 51, 100, &[VIP], "unicast_peer 10.9.0.2");
    let shown = show(&a, &lab, &odd);
    shown.assert_says(0, "warning: ");
    shown.assert_says(0, "conf:11: vrrp_instance VI_1: unicast_peer is a block");
    let warning = &shown.json["warnings"][0];
    assert_eq!(
        (&warning["name"], &warning["line"]),
        (&json!("VI_1"), &json!(11))
    );
    assert_eq!(warning["stops"], false);
    assert_eq!(shown.json["instances"][0]["vips"][0]["address"], VIP);
}

#[test]
fn names_do_not_steer_the_terminal() {
    let lab = Lab::new();
    let a = lab.host("a");
    let name = "VI\u{1b}[2J\u{9b}31m\u{202e}";
    let text = instance(name, 51, 100, &[VIP], "mcast_src_ip x\u{7}")
        + &instance("VI_2", 52, 100, &["${_ENV \u{1b}c}"], "")
        + &format!("vrrp_sync_group G\u{1b}c {{\n group {{\n {name}\n }}\n}}\n");
    let shown = show(&a, &lab, &text);
    shown.assert_says(1, "instance VI\\u{1b}[2J\\u{9b}31m\\u{202e} on eth0");
    let conf = lab.directory().join("conf");
    let json = run(&a, &with(&conf, "show --json")).stdout;
    for printed in [&shown.text.stdout, &shown.text.stderr, &json] {
        let steers = |c: char| c.is_control() && c != '\n';
        assert!(!printed.contains(steers), "{printed:?}");
    }
    assert_eq!(shown.json["instances"][0]["name"], name);
}

#[test]
fn show_fails_with_wrong_settings() {
    let lab = Lab::new();
    let a = lab.host("a");
    let conf = file(&lab, "conf", &instance("VI_1", 51, 100, &[VIP], ""));
    let settings = file(&lab, "settings.toml", "rates = 10\n");
    for json in ["", " --json"] {
        let arguments = format!("--config {} show{json}", settings.display());
        let ended = run(&a, &with(&conf, &arguments)).exits(2);
        for part in ["settings.toml", "rates"] {
            ended.logs(part);
        }
    }
}

#[test]
fn keepalived_runs_the_first_notify_and_show_tells_which_that_is() {
    let lab = Lab::new();
    let a = lab.host("a");
    let [first, second] = ["first", "second"].map(|name| {
        let told = lab.directory().join(format!("{name}.told"));
        let body = match name {
            "first" => format!("echo \"$@\" >> {}", told.display()),
            _ => format!("echo \"$@\" >> {}\n: vipherald notify", told.display()),
        };
        (lab.write_hook(&format!("{name}.hook"), &body), told)
    });
    let (mine, ours) = (first.0.display(), second.0.display());
    let root = "global_defs {\n script_user root\n}\n";
    let wrong = root.to_owned()
        + &instance(
            "VI_1",
            51,
            100,
            &[VIP],
            &format!("notify {mine}\n notify {ours}"),
        );
    let shown = show(&a, &lab, &wrong);
    shown.assert_says(0, "wired not at all");
    shown.assert_says(
        0,
        ":15: vrrp_instance VI_1: a second notify: keepalived ignores it, and runs that of line 14",
    );
    assert_eq!(shown.json["instances"][0]["wired"], json!([]));

    let keepalived = a.keepalived(&wrong);
    eventually("the first hook is shown", SOON, || {
        first.1.exists().then_some(())
    });
    eventually("of MASTER, too", SOON, || {
        fs::read_to_string(&first.1)
            .unwrap()
            .contains("MASTER")
            .then_some(())
    });
    assert!(!second.1.exists());
    drop(keepalived);

    let right = root.to_owned()
        + &instance(
            "VI_1",
            51,
            100,
            &[VIP],
            &format!("notify {ours}\n notify_master {mine}"),
        );
    let shown = show(&a, &lab, &right);
    shown.assert_says(0, "  wired by notify\n");
    assert_eq!(
        shown.json["instances"][0]["wired"],
        json!([{ "by": "notify", "group": null, "keywords": ["notify"] }])
    );
    let _keepalived = a.keepalived(&right);
    eventually("the script that mentions vipherald is shown", SOON, || {
        second.1.exists().then_some(())
    });
}

#[test]
fn show_warns_of_a_hook_that_keepalived_drops() {
    let lab = Lab::new();
    let a = lab.host("a");
    let told = lab.directory().join("told");
    let body = format!("echo \"$@\" >> {}\n: vipherald notify", told.display());
    let hook = lab.write_hook("hook", &body);
    let open = lab.directory().join("open");
    fs::create_dir(&open).unwrap();
    fs::copy(&hook, open.join("hook")).unwrap();
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let dropped = open.join("hook");
    let missing = lab.directory().join("missing/vipherald");
    for (globals, command, said) in [
        (
            "enable_script_security\n script_user root",
            &dropped,
            "because of enable_script_security",
        ),
        ("script_user root", &missing, "keepalived ignores it: "),
        ("script_user nobody", &hook, "keepalived runs it as nobody"),
    ] {
        let text = format!("global_defs {{\n {globals}\n}}\n")
            + &instance(
                "VI_1",
                51,
                100,
                &[VIP],
                &format!("notify {}", command.display()),
            );
        let shown = show(&a, &lab, &text);
        shown.assert_says(0, "vrrp_instance VI_1: notify: ");
        shown.assert_says(0, said);
    }
    // keepalived drops the first of them, in deed.
    let text = instance(
        "VI_1",
        51,
        100,
        &[VIP],
        &format!("notify {}", dropped.display()),
    );
    let text = format!("global_defs {{\n enable_script_security\n script_user root\n}}\n{text}");
    let mut keepalived = a.keepalived(&text);
    keepalived.wait_for_state("VI_1", "MASTER", SOON);
    assert!(
        keepalived.log().contains("disabling"),
        "{}",
        keepalived.log()
    );
    assert!(!told.exists());
}

#[test]
fn show_warns_of_a_changed_file_until_keepalived_reloads() {
    let lab = Lab::new();
    let a = lab.host("a");
    let include = file(&lab, "include.conf", "# nothing\n");
    let text = format!("include {}\n", include.display()) + &instance("VI_1", 51, 100, &[VIP], "");
    let mut keepalived = a.keepalived(&text);
    keepalived.wait_for_state("VI_1", "BACKUP", SOON);
    let conf = the_file_of_keepalived(&lab);
    let warnings = || {
        let ended = run(&a, &with(&conf, "show --json")).exits(0);
        let shown = ended.report();
        let all = shown["warnings"].as_array().unwrap().iter();
        let outdated = all.filter(|one| {
            one["message"]
                .as_str()
                .unwrap()
                .contains("was changed after")
        });
        outdated
            .map(|one| PathBuf::from(one["file"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(warnings(), [] as [PathBuf; 0]);
    fs::write(&include, "# something\n").unwrap();
    assert_eq!(warnings(), std::slice::from_ref(&include));
    // Another file takes its place: its contents are older than what keepalived read.
    fs::copy(&conf, lab.directory().join("new")).unwrap();
    keepalived.reload(&text);
    assert_eq!(warnings(), [] as [PathBuf; 0]);
    fs::rename(lab.directory().join("new"), &conf).unwrap();
    assert_eq!(warnings(), std::slice::from_ref(&conf));
    keepalived.reload(&text);
    assert_eq!(warnings(), [] as [PathBuf; 0]);

    // A keepalived of another network namespace does not matter.
    let b = lab.host("b");
    fs::write(&include, "# more\n").unwrap();
    let elsewhere = run(&b, &with(&conf, "show"));
    assert!(
        !elsewhere.stdout.contains("was changed after"),
        "{elsewhere:?}"
    );
    // Of another file, it does.
    let other = file(&lab, "other", &text);
    let shown = run(&a, &with(&other, "show"));
    let runs_with = format!("keepalived runs with {}", conf.display());
    shown.prints(&runs_with);
}

/// The lab gives each keepalived a folder of its own.
fn the_file_of_keepalived(lab: &Lab) -> PathBuf {
    let entries = fs::read_dir(lab.directory()).unwrap();
    let mut files = entries.map(|entry| entry.unwrap().path().join("keepalived.conf"));
    let file = files.find(|file| file.exists()).unwrap();
    fs::canonicalize(file).unwrap()
}

#[test]
fn an_event_logs_the_warnings_about_its_instance() {
    let lab = Lab::new();
    let a = lab.host("a");
    let odd = |name, id| instance(name, id, 100, &[VIP], "mcast_src_ip x");
    let conf = file(&lab, "conf", &(odd("VI_1", 51) + &odd("VI_2", 52)));
    let ended = run(&a, &with(&conf, "notify INSTANCE VI_1 BACKUP 100")).exits(0);
    ended.logs("conf:11: vrrp_instance VI_1: x is no address");
    ended.logs_no("VI_2");
}

//! Claims in the name of another card of the owner, which is on another link.

use std::thread;
use std::time::Duration;

use vipherald_lab::{Host, Lab, State};

use crate::common::{
    Ended, OLD_MAC, Run, VIP, VIP6, address_beside, give, meet, second_interface, verdict_in,
    vipherald,
};
use crate::flood::claim;
use crate::share_tables;

/// An owner announces a VIP, whose other card `v0` does not have it; somebody claims it in the name of that
/// card. Of two peers the second has a wrong entry. Gives what the owner said, and its verdicts.
fn announce(vip: &str, prepare: fn(&Host)) -> (Ended, [String; 2]) {
    let lab = Lab::new();
    let owner = lab.host("owner");
    let (follows, stale, attacker) = (lab.host("follows"), lab.host("stale"), lab.host("attacker"));
    second_interface(&owner);
    prepare(&owner);
    give(&owner, vip, "eth0");
    meet(&owner, [&follows, &stale]);
    stale.remember_as(vip, OLD_MAC, State::Permanent);
    let forged = claim(vip.parse().unwrap(), owner.interface_mac("v0").0);
    let arguments = format!("--json announce {vip} --timeout 4");
    let mut announcing = Run::start(vipherald(&owner, &arguments));
    while !announcing.has_ended() {
        attacker.send(&forged);
        thread::sleep(Duration::from_millis(100));
    }
    let ended = announcing.end().exits(3);
    ended.logs("of this host, answers for it, too");
    let report = ended.report();
    let verdicts = [&follows, &stale]
        .map(|host| verdict_in(&report, vip, address_beside(vip, host)).to_owned());
    (ended, verdicts)
}

#[test]
fn a_claim_in_the_name_of_another_card_hides_no_stale_peer() {
    let _shared = share_tables();
    for vip in [VIP, VIP6] {
        let (_, verdicts) = announce(vip, |_| ());
        assert_eq!(verdicts, ["proven", "stale"], "{vip}");
    }
}

/// So many that it does not receive on all of them: then nobody knows.
#[test]
fn nor_does_one_in_the_name_of_many_interfaces_with_one_mac() {
    let _shared = share_tables();
    let bridges = |owner: &Host| {
        let mac = owner.interface_mac("v0");
        let one = |number: u8| format!("link add b{number} address {mac} type bridge\n");
        owner.ip(&(0..18).map(one).collect::<String>());
    };
    for (vip, verdict) in [(VIP, "acknowledged"), (VIP6, "silent")] {
        let (ended, verdicts) = announce(vip, bridges);
        assert_eq!(verdicts, ["proven", verdict], "{vip}");
        ended.logs("may send to another card of this host");
    }
}

//! Claims in the name of another card of the owner, which is on another link.

use std::thread;
use std::time::Duration;

use vipherald_lab::{Lab, State};

use crate::common::{
    OLD_MAC, Run, VIP, VIP6, address_beside, give, meet, second_interface, verdict_in, vipherald,
};
use crate::flood::claim;
use crate::share_tables;

#[test]
fn a_claim_in_the_name_of_another_card_hides_no_stale_peer() {
    let _shared = share_tables();
    for vip in [VIP, VIP6] {
        let lab = Lab::new();
        let (owner, follows) = (lab.host("owner"), lab.host("follows"));
        let (stale, attacker) = (lab.host("stale"), lab.host("attacker"));
        second_interface(&owner);
        give(&owner, vip, "eth0");
        meet(&owner, [&follows, &stale]);
        stale.remember_as(vip, OLD_MAC, State::Permanent);
        let forged = claim(vip.parse().unwrap(), owner.interface_mac("v0").0);
        let mut announcing = Run::start(vipherald(
            &owner,
            &format!("--json announce {vip} --timeout 4"),
        ));
        while !announcing.has_ended() {
            attacker.send(&forged);
            thread::sleep(Duration::from_millis(100));
        }
        let ended = announcing.end().exits(3);
        ended.logs("the MAC of v0 of this host, answers for it, too");
        let verdict = |host| verdict_in(&ended.report(), vip, address_beside(vip, host)).to_owned();
        assert_eq!(
            (verdict(&follows), verdict(&stale)),
            ("proven".into(), "stale".into())
        );
    }
}

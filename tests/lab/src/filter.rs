//! What a switch port lets through: nftables rules on the port itself, so that a frame lost on its
//! way to a host never shows in a capture there.

use std::fmt::Write;

use crate::lab::Direction;

/// Loss is given to nftables in hundredths of a percent.
const ALL: u32 = 10_000;

/// The state of one switch port.
#[derive(Default)]
pub(crate) struct Port {
    lost_to_host: u32,
    lost_from_host: u32,
    blackout: bool,
}

impl Port {
    /// Sets the share of frames that are lost.
    pub(crate) fn lose(&mut self, direction: Direction, percent: f64) {
        assert!(
            (0.0..=100.0).contains(&percent),
            "{percent} % is no share of the frames"
        );
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 10,000"
        )]
        let share = (percent * f64::from(ALL) / 100.0).round() as u32;
        match direction {
            Direction::ToHost => self.lost_to_host = share,
            Direction::FromHost => self.lost_from_host = share,
        }
    }

    /// Lets nothing through, or what `lose` leaves.
    pub(crate) fn set_blackout(&mut self, blackout: bool) {
        self.blackout = blackout;
    }

    /// The nftables commands that make `device` behave so.
    pub(crate) fn rules(&self, device: &str) -> String {
        let mut rules = String::from("add table netdev lab\n");
        for (hook, lost) in [
            ("egress", self.lost_to_host),
            ("ingress", self.lost_from_host),
        ] {
            let chain = format!("netdev lab {device}_{hook}");
            writeln!(
                rules,
                "add chain {chain} {{ type filter hook {hook} device \"{device}\" priority 0; }}\n\
                 flush chain {chain}"
            )
            .expect("a String takes all");
            match if self.blackout { ALL } else { lost } {
                0 => {}
                ALL => rules.push_str(&format!("add rule {chain} drop\n")),
                lost => rules.push_str(&format!(
                    "add rule {chain} numgen random mod {ALL} < {lost} drop\n"
                )),
            }
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::{Direction, Port};

    #[test]
    fn a_blackout_ends_in_the_loss_that_was_set() {
        let mut port = Port::default();
        port.lose(Direction::ToHost, 30.0);
        port.set_blackout(true);
        assert_eq!(port.rules("p1").matches(" drop").count(), 2);
        port.set_blackout(false);
        assert_eq!(port.rules("p1").matches("mod 10000 < 3000 drop").count(), 1);
    }
}

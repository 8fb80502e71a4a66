//! When hosts got and lost the VIPs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::SystemTime;

use vipherald_lab::Host;

use crate::VIPS;

/// When a host got and lost the VIPs, as `ip monitor` tells.
pub(crate) struct Addresses {
    monitor: Child,
    pub(crate) moves: Arc<Mutex<Vec<Move>>>,
}

/// A VIP came (`here`) or went, and when that was read, at most so much later than it happened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub(crate) at: SystemTime,
    pub(crate) vip: &'static str,
    pub(crate) here: bool,
}

impl Addresses {
    pub(crate) fn watch(host: &Host) -> Self {
        let mut monitor = host
            .command("ip")
            .args(["-o", "monitor", "address"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
        let moves = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&moves);
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let at = SystemTime::now();
                let vip = VIPS
                    .into_iter()
                    .find(|vip| line.contains(&format!(" {vip}/")));
                if let Some(vip) = vip {
                    let here = !line.starts_with("Deleted");
                    told.lock().unwrap().push(Move { at, vip, here });
                }
            }
        });
        Self { monitor, moves }
    }
}

impl Drop for Addresses {
    fn drop(&mut self) {
        let _ = self.monitor.kill();
        let _ = self.monitor.wait();
    }
}

//! A TLS server behind a VIP, and who reaches it.

use std::process::{Child, Stdio};

use nix::sys::signal::Signal;
use vipherald_lab::{Host, Lab, eventually};

use super::{SOON, VIP, signal};

/// TLS on port 6443 of all addresses of a host, with a certificate of that host's name.
pub(crate) struct TlsServer(Child);

impl TlsServer {
    /// Starts one, and waits until it serves.
    pub(crate) fn start(lab: &Lab, host: &Host) -> Self {
        let name = host.name();
        let of = |what: &str| format!("{}/{name}.{what}", lab.directory().display());
        let (key, certificate) = (of("tls-key"), of("tls-certificate"));
        host.run(&format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -subj /CN={name} -keyout {key} -out {certificate}"
        ));
        let server = host
            .command("openssl")
            .args(["s_server", "-quiet", "-accept", "6443"])
            .args(["-key", &key, "-cert", &certificate])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("TLS is served", SOON, || {
            handshake(host, &host.ipv4().to_string())
        });
        Self(server)
    }

    /// The kernel goes on accepting connections; nobody answers any more.
    pub(crate) fn freeze(&self) {
        signal(self.0.id(), Signal::SIGSTOP);
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whose certificate a TLS client sees at the VIP, if its handshake succeeds.
pub(crate) fn tls_to_vip(client: &Host) -> Option<String> {
    handshake(client, VIP)
}

fn handshake(client: &Host, server: &str) -> Option<String> {
    let command = format!("timeout 2 openssl s_client -connect {server}:6443");
    let output = client.try_run(&command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, name) = text.split_once("subject=")?;
    let name = name.lines().next()?.replace(' ', "");
    let name = name.strip_prefix("CN=")?;
    output.status.success().then(|| name.to_owned())
}

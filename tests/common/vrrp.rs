//! VRRP advertisements, as a master sends them.

use std::net::IpAddr;

use vipherald_lab::{Mac, write_checksum};

/// The advertisement of a master that has a VIP: version 2 for IPv4 (RFC 3768 §5), 3 for IPv6 (RFC 9568
/// §5).
pub(crate) fn advert(vip: IpAddr, mac: Mac) -> Vec<u8> {
    const MESSAGE: [u8; 8] = [0x21, 51, 255, 1, 0, 1, 0, 0];
    match vip {
        IpAddr::V4(vip) => {
            let mut ip = vec![0x45, 0xc0, 0, 32, 0, 1, 0, 0, 255, 112, 0, 0];
            ip.extend([10, 9, 0, 77, 224, 0, 0, 18]);
            write_checksum(&mut ip, 10);
            let mut message = [&MESSAGE[..], &vip.octets()].concat();
            write_checksum(&mut message, 6);
            let group = [0x01, 0, 0x5e, 0, 0, 0x12];
            [&group, &mac.0[..], &[8, 0], &ip, &message].concat()
        }
        IpAddr::V6(vip) => {
            let (mut from, mut to) = ([0; 16], [0; 16]);
            (from[0], from[1], from[15]) = (0xfe, 0x80, 0x77);
            (to[0], to[1], to[15]) = (0xff, 2, 0x12);
            let mut message = [&MESSAGE[..], &vip.octets()].concat();
            message[0] = 0x31;
            let mut summed = [&from[..], &to, &[0, 0, 0, 24, 0, 0, 0, 112], &message].concat();
            write_checksum(&mut summed, 40 + 6);
            let ip = [&[0x60, 0, 0, 0, 0, 24, 112, 255], &from[..], &to].concat();
            let group = [0x33, 0x33, 0, 0, 0, 0x12];
            [&group, &mac.0[..], &[0x86, 0xdd], &ip, &summed[40..]].concat()
        }
    }
}

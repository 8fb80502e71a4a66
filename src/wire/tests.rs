//! Every format in both directions against octets as they were captured from Linux 6.18 hosts.

use super::*;

const MAC: Mac = Mac::new([0x38, 0x68, 0xdd, 0x4f, 0xe7, 0xe8]);

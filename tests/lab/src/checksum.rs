//! The Internet checksum.

/// Writes the Internet checksum of `octets` (RFC 1071) at an offset.
///
/// # Panics
/// If there is no room at the offset.
pub fn write_checksum(octets: &mut [u8], at: usize) {
    octets[at..at + 2].fill(0);
    let words = octets.chunks(2).map(|two| {
        u32::from(u16::from_be_bytes([
            two[0],
            two.get(1).copied().unwrap_or(0),
        ]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap();
    octets[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

//! Ethernet addresses.

use std::fmt;
use std::str::FromStr;

/// An Ethernet address, written `02:00:00:00:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let octets: Result<Vec<u8>, _> = text
            .split(':')
            .map(|octet| u8::from_str_radix(octet, 16))
            .collect();
        octets
            .ok()
            .and_then(|octets| octets.try_into().ok())
            .map(Self)
            .ok_or_else(|| format!("{text:?} is not an Ethernet address"))
    }
}

#[cfg(test)]
mod tests {
    use super::Mac;

    #[test]
    fn a_mac_reads_back_as_written() {
        let mac = Mac([2, 0, 0, 0, 0xab, 1]);
        assert_eq!(mac.to_string(), "02:00:00:00:ab:01");
        assert_eq!("02:00:00:00:ab:01".parse(), Ok(mac));
        assert!("02:00:00:00:ab".parse::<Mac>().is_err());
    }
}

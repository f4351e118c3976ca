//! One datagram on a media port: what is it?
//!
//! RTP and RTCP may share a port (RFC 5761) with STUN and DTLS (RFC 7983). The first two bytes
//! decide. The answer says only which parser may look next; it is no promise of being well-formed.

pub mod rtcp;
pub mod rtp;

/// What the first bytes of a datagram claim it to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An RTP packet: version 2, at least the fixed header.
    Rtp,
    /// An RTCP packet: version 2, type 192 to 223 (RFC 5761 §4), at least header and SSRC.
    Rtcp,
    /// A STUN message (RFC 8489 §5): first byte 0 to 3 and the magic cookie.
    Stun,
    /// DTLS, ZRTP, TURN channel data, keep-alive bytes, noise: nothing we take.
    Other,
}

/// Why a datagram is not what it claims. Carries nothing, because strangers write datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Shorter than its own headers.
    TooShort,
    /// Version is not 2.
    Version,
    /// The header extension claims more bytes than there are.
    Extension,
    /// The padding count is zero or larger than what it could pad.
    Padding,
    /// An RTCP length or count field does not fit the bytes.
    Length,
}

/// The caller's buffer is smaller than what was to be written; nothing useful is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// RFC 8489 §5: the four bytes after type and length.
const STUN_MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Tells RTP, RTCP and STUN apart by their first bytes (RFC 7983 §7, RFC 5761 §4).
#[must_use]
pub fn classify(datagram: &[u8]) -> Kind {
    match datagram {
        [128..=191, 192..=223, ..] if datagram.len() >= rtcp::MIN_BYTES => Kind::Rtcp,
        [128..=191, 192..=223, ..] => Kind::Other,
        [128..=191, ..] if datagram.len() >= rtp::HEADER_BYTES => Kind::Rtp,
        [0..=3, _, _, _, a, b, c, d, ..] if [*a, *b, *c, *d] == STUN_MAGIC_COOKIE => Kind::Stun,
        _ => Kind::Other,
    }
}

/// Big-endian 16 bits at `at`, if they are there.
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    let (head, _) = bytes.get(at..)?.split_first_chunk::<2>()?;
    Some(u16::from_be_bytes(*head))
}

/// Big-endian 32 bits at `at`, if they are there.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let (head, _) = bytes.get(at..)?.split_first_chunk::<4>()?;
    Some(u32::from_be_bytes(*head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_bytes_decide() {
        let mut datagram = [0_u8; 20];
        for first in 0..=255_u8 {
            for second in 0..=255_u8 {
                (datagram[0], datagram[1]) = (first, second);
                let expected = match (first, second) {
                    (128..=191, 192..=223) => Kind::Rtcp,
                    (128..=191, _) => Kind::Rtp,
                    _ => Kind::Other,
                };
                assert_eq!(classify(&datagram), expected, "{first} {second}");
            }
        }
    }

    #[test]
    fn stun_needs_its_magic_cookie() {
        let mut datagram = [0_u8; 20];
        datagram[1] = 1;
        assert_eq!(classify(&datagram), Kind::Other);
        datagram[4..8].copy_from_slice(&STUN_MAGIC_COOKIE);
        assert_eq!(classify(&datagram), Kind::Stun);
        datagram[0] = 4;
        assert_eq!(classify(&datagram), Kind::Other);
    }

    #[test]
    fn short_datagrams_are_nothing() {
        for len in 0..12 {
            assert_eq!(classify(&vec![0x80; len]), Kind::Other);
        }
        for len in 0..8 {
            let mut datagram = vec![200_u8; len];
            if let Some(first) = datagram.first_mut() {
                *first = 0x80;
            }
            assert_eq!(classify(&datagram), Kind::Other);
        }
    }
}

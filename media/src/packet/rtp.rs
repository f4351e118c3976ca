//! RTP: a checked view of a packet and a header written in place (RFC 3550 §5.1, §5.3.1).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! |V=2|P|X|  CC   |M|     PT      |        sequence number        |
//! |                           timestamp                           |
//! |           synchronisation source (SSRC) identifier            |
//! |             contributing sources (CC times 32 bits)           |
//! |   defined by profile (if X)   |  length in 32-bit words (if X)|
//! ```
//!
//! Invariant: a [`RtpView`] exists only for a packet whose contributing sources, extension and
//! padding all lie inside the datagram, so its payload range can be sliced without a further check.

use std::ops::Range;

use super::{Malformed, NoRoom, read_u16, read_u32};

/// Bytes of the fixed header.
pub const HEADER_BYTES: usize = 12;

const VERSION: u8 = 2;
/// The first byte of a packet without padding, extension and contributing sources.
const PLAIN: u8 = VERSION << 6;
const EXTENSION_BIT: u8 = 0x10;
const MARKER_BIT: u8 = 0x80;
const EXTENSION_HEADER_BYTES: usize = 4;

/// The fields of the fixed header that differ from packet to packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Header {
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Marker bit: for audio, the first packet after a silence (RFC 3551 §4.1).
    pub marker: bool,
    /// Sequence number; wraps.
    pub sequence: u16,
    /// Media time in ticks of the payload type's clock; wraps.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

/// A packet whose every length was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpView {
    /// The fixed header.
    pub header: Header,
    payload_start: usize,
    payload_end: usize,
}

impl RtpView {
    /// Where the payload lies in the datagram: after all headers, before any padding.
    #[must_use]
    pub fn payload_range(&self) -> Range<usize> {
        self.payload_start..self.payload_end
    }

    /// The payload itself. `datagram` is the one this view was made of; of another, shorter one the
    /// payload is empty.
    #[must_use]
    pub fn payload<'a>(&self, datagram: &'a [u8]) -> &'a [u8] {
        datagram.get(self.payload_range()).unwrap_or_default()
    }
}

/// Reads one RTP packet in the clear.
///
/// # Errors
/// [`Malformed`] when version, contributing sources, extension or padding do not fit the datagram.
pub fn view(datagram: &[u8]) -> Result<RtpView, Malformed> {
    match datagram.first_chunk::<HEADER_BYTES>() {
        // Nearly always there is nothing before the payload but this, and nothing after it.
        Some(fixed) if fixed[0] == PLAIN => Ok(RtpView {
            header: take(fixed),
            payload_start: HEADER_BYTES,
            payload_end: datagram.len(),
        }),
        _ => view_any(datagram),
    }
}

/// The view of a packet that may have contributing sources, an extension and padding.
fn view_any(datagram: &[u8]) -> Result<RtpView, Malformed> {
    let payload_start = header_bytes(datagram)?;
    let reader = rtp_rs::RtpReader::new(datagram).map_err(reason)?;
    let padding = match reader.padding() {
        None => 0,
        Some(0) => return Err(Malformed::Padding),
        Some(count) => usize::from(count),
    };
    let payload_end = datagram
        .len()
        .checked_sub(padding)
        .filter(|&end| end >= payload_start)
        .ok_or(Malformed::Padding)?;
    let header = Header {
        payload_type: reader.payload_type(),
        marker: reader.mark(),
        sequence: reader.sequence_number().into(),
        timestamp: reader.timestamp(),
        ssrc: reader.ssrc(),
    };
    Ok(RtpView { header, payload_start, payload_end })
}

fn reason(error: rtp_rs::RtpReaderError) -> Malformed {
    use rtp_rs::RtpReaderError as E;
    match error {
        E::BufferTooShort(_) | E::HeadersTruncated { .. } => Malformed::TooShort,
        E::UnsupportedVersion(_) => Malformed::Version,
        E::PaddingLengthInvalid(_) => Malformed::Padding,
    }
}

/// Length of all headers: fixed part, contributing sources and extension. Unlike [`view`] it does
/// not look at padding, whose count is ciphertext while a packet is protected (RFC 3711 §3.1).
///
/// # Errors
/// [`Malformed`] when the version is not 2 or a header reaches beyond the datagram.
pub fn header_bytes(datagram: &[u8]) -> Result<usize, Malformed> {
    let &first = datagram.first().ok_or(Malformed::TooShort)?;
    if datagram.len() < HEADER_BYTES {
        return Err(Malformed::TooShort);
    }
    if first >> 6 != VERSION {
        return Err(Malformed::Version);
    }
    let mut end = HEADER_BYTES + 4 * usize::from(first & 0x0f);
    if first & EXTENSION_BIT != 0 {
        let words = read_u16(datagram, end + 2).ok_or(Malformed::Extension)?;
        end += EXTENSION_HEADER_BYTES + 4 * usize::from(words);
        if end > datagram.len() {
            return Err(Malformed::Extension);
        }
    }
    if end > datagram.len() { Err(Malformed::TooShort) } else { Ok(end) }
}

/// Writes a plain fixed header (no padding, extension or contributing sources) at the start of
/// `buffer`; the payload belongs at [`HEADER_BYTES`].
///
/// # Errors
/// [`NoRoom`] when the buffer is shorter than the header.
pub fn write_header(buffer: &mut [u8], header: Header) -> Result<(), NoRoom> {
    let fixed = buffer.first_chunk_mut::<HEADER_BYTES>().ok_or(NoRoom)?;
    fixed[0] = PLAIN;
    put(fixed, header);
    Ok(())
}

/// Replaces the header fields of a packet in place and leaves its padding bit, extension,
/// contributing sources and payload as they are: what relaying a packet to another leg needs.
///
/// # Errors
/// [`NoRoom`] when the packet is shorter than the header.
pub fn rewrite_header(packet: &mut [u8], header: Header) -> Result<(), NoRoom> {
    let fixed = packet.first_chunk_mut::<HEADER_BYTES>().ok_or(NoRoom)?;
    put(fixed, header);
    Ok(())
}

fn take(fixed: &[u8; HEADER_BYTES]) -> Header {
    let [_, second, s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = *fixed;
    Header {
        payload_type: second & 0x7f,
        marker: second & MARKER_BIT != 0,
        sequence: u16::from_be_bytes([s0, s1]),
        timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
        ssrc: u32::from_be_bytes([i0, i1, i2, i3]),
    }
}

fn put(fixed: &mut [u8; HEADER_BYTES], header: Header) {
    let marker = if header.marker { MARKER_BIT } else { 0 };
    let [_, second, sequence @ ..] = fixed;
    *second = marker | (header.payload_type & 0x7f);
    let [s0, s1, t0, t1, t2, t3, i0, i1, i2, i3] = sequence;
    [*s0, *s1] = header.sequence.to_be_bytes();
    [*t0, *t1, *t2, *t3] = header.timestamp.to_be_bytes();
    [*i0, *i1, *i2, *i3] = header.ssrc.to_be_bytes();
}

/// SSRC of an RTP packet, without any other check.
pub(crate) fn ssrc(datagram: &[u8]) -> Option<u32> {
    read_u32(datagram, 8)
}

/// Sequence number of an RTP packet, without any other check.
pub(crate) fn sequence(datagram: &[u8]) -> Option<u16> {
    read_u16(datagram, 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header = Header {
        payload_type: 101,
        marker: true,
        sequence: 0xabcd,
        timestamp: 0x0102_0304,
        ssrc: 0xdead_beef,
    };

    fn packet(first: u8, rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; HEADER_BYTES];
        write_header(&mut packet, HEADER).unwrap();
        packet[0] = first;
        packet.extend_from_slice(rest);
        packet
    }

    #[test]
    fn what_is_written_is_read_back() {
        let packet = packet(0x80, b"payload");
        let view = view(&packet).unwrap();
        assert_eq!(view.header, HEADER);
        assert_eq!(view.payload(&packet), b"payload");
        assert_eq!(packet[1], 0x80 | 101);
    }

    #[test]
    fn an_empty_payload_is_a_packet() {
        let packet = packet(0x80, b"");
        assert_eq!(view(&packet).unwrap().payload(&packet), b"");
    }

    #[test]
    fn contributing_sources_and_extension_are_skipped() {
        let packet = packet(0x92, b"csrccsrc\xbe\xde\x00\x01\x10\xff\x00\x00hello");
        let view = view(&packet).unwrap();
        assert_eq!(view.payload_range(), 28..33);
        assert_eq!(view.payload(&packet), b"hello");
    }

    #[test]
    fn headers_that_reach_beyond_the_datagram_are_refused() {
        assert_eq!(view(&packet(0x8f, &[0; 59])), Err(Malformed::TooShort));
        assert_eq!(view(&packet(0x90, b"\xbe\xde\x00")), Err(Malformed::Extension));
        assert_eq!(view(&packet(0x90, b"\xbe\xde\x00\x01abc")), Err(Malformed::Extension));
        assert_eq!(view(&packet(0x90, b"\xbe\xde\xff\xffabcd")), Err(Malformed::Extension));
    }

    #[test]
    fn padding_that_lies_is_refused() {
        assert_eq!(view(&packet(0xa0, b"")), Err(Malformed::TooShort));
        assert_eq!(view(&packet(0xa0, b"abc\x00")), Err(Malformed::Padding));
        assert_eq!(view(&packet(0xa0, b"abc\x05")), Err(Malformed::Padding));
        let whole = packet(0xa0, b"abc\x04");
        assert_eq!(view(&whole).unwrap().payload(&whole), b"");
        let some = packet(0xa0, b"abc\x02");
        assert_eq!(view(&some).unwrap().payload(&some), b"ab");
    }

    #[test]
    fn only_version_two_is_read() {
        for first in 0..=255_u8 {
            let is_two = first >> 6 == 2;
            let read = view(&packet(first, &[1; 80]));
            assert_eq!(read != Err(Malformed::Version), is_two, "{first:#x}");
        }
    }

    #[test]
    fn rewriting_keeps_everything_but_the_header_fields() {
        let mut relayed = packet(0x91, b"csrc\xbe\xde\x00\x00voice");
        let before = relayed.clone();
        let new = Header { payload_type: 8, marker: false, sequence: 1, timestamp: 2, ssrc: 3 };
        rewrite_header(&mut relayed, new).unwrap();
        assert_eq!(view(&relayed).unwrap().header, new);
        assert_eq!(relayed[0], before[0]);
        assert_eq!(relayed[12..], before[12..]);
    }

    #[test]
    fn a_payload_type_above_seven_bits_never_sets_the_marker() {
        let mut packet = packet(0x80, b"");
        let header = Header { payload_type: 0xff, marker: false, ..HEADER };
        write_header(&mut packet, header).unwrap();
        assert!(!view(&packet).unwrap().header.marker);
    }

    #[test]
    fn buffers_too_short_for_a_header_are_refused() {
        for len in 0..HEADER_BYTES {
            assert_eq!(write_header(&mut vec![0; len], HEADER), Err(NoRoom));
            assert_eq!(rewrite_header(&mut vec![0; len], HEADER), Err(NoRoom));
            assert_eq!(header_bytes(&vec![0x80; len]), Err(Malformed::TooShort));
        }
    }

    #[test]
    fn a_datagram_of_nine_thousand_bytes_is_read_like_any_other() {
        let jumbo = packet(0x8f, &[7; 9_000 - HEADER_BYTES]);
        assert_eq!(view(&jumbo).unwrap().payload_range(), 72..9_000);
        let jumbo = packet(0x90, &[0x08; 9_000 - HEADER_BYTES]);
        assert_eq!(view(&jumbo).unwrap().payload_range().start, 16 + 4 * 0x0808);
    }

    #[test]
    fn another_shorter_datagram_has_no_payload() {
        let long = packet(0x80, b"payload");
        assert_eq!(view(&long).unwrap().payload(&long[..5]), b"");
    }

    proptest! {
        #[test]
        fn a_plain_packet_reads_the_same_by_the_short_way(
            mut bytes in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            if let Some(first) = bytes.first_mut() {
                *first = PLAIN;
            }
            prop_assert_eq!(view(&bytes), view_any(&bytes));
        }

        #[test]
        fn no_bytes_panic_and_every_payload_lies_inside(
            mut bytes in prop::collection::vec(any::<u8>(), 0..100),
            version_two: bool,
        ) {
            if let (true, Some(first)) = (version_two, bytes.first_mut()) {
                *first = (*first & 0x3f) | 0x80;
            }
            if let Ok(view) = view(&bytes) {
                let range = view.payload_range();
                prop_assert!(range.start >= HEADER_BYTES && range.start <= range.end);
                prop_assert!(range.end <= bytes.len());
            }
        }
    }
}

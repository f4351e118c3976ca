//! RTCP: compound reports built into a caller's buffer, and a bounded reader (RFC 3550 §6).
//!
//! What we send is always SR or RR, then SDES with the CNAME, then BYE at the end of a stream
//! (§6.1). What we take is any chain of packets whose lengths add up to the datagram, reduced-size
//! ones too (RFC 5506); types we have no use for are named and skipped.
//!
//! ```text
//! |V=2|P|  count  |      type     |   length in 32-bit words, less one  |
//! ```
//!
//! Invariant: [`parse`] walks the whole chain before it gives out anything, so a [`Packets`] can be
//! read to its end without meeting an error.

use super::{Malformed, NoRoom, read_u32};

/// Smallest RTCP datagram worth a look: header and SSRC.
pub const MIN_BYTES: usize = 8;
/// Most report blocks one packet can hold: the count has five bits.
pub const MAX_REPORTS: usize = 31;

const HEADER_BYTES: usize = 4;
const SENDER_INFO_BYTES: usize = 20;
const REPORT_BYTES: usize = 24;
const VERSION: u8 = 2;
const PADDING_BIT: u8 = 0x20;
const COUNT_MASK: u8 = 0x1f;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const BYE: u8 = 203;
const CNAME_ITEM: u8 = 1;
const MAX_CNAME_BYTES: usize = 255;

/// What a sender says of its own stream (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SenderInfo {
    /// Wall clock as NTP time: seconds since 1900 in the upper half, fraction in the lower.
    pub ntp: u64,
    /// The same instant in ticks of the RTP clock.
    pub rtp_timestamp: u32,
    /// Packets sent so far.
    pub packets: u32,
    /// Payload bytes sent so far, headers and padding left out.
    pub octets: u32,
}

/// What a receiver says of one stream it hears (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The stream spoken of.
    pub ssrc: u32,
    /// Loss since the last report, in 256ths.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; negative when duplicates outnumber losses. 24 bits signed,
    /// held to that range when written.
    pub cumulative_lost: i32,
    /// Highest sequence number received, with the number of wraps in the upper half.
    pub highest_sequence: u32,
    /// Interarrival jitter in ticks of the RTP clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report, 0 if there was none.
    pub last_sender_report: u32,
    /// Time since that report, in 65,536ths of a second.
    pub delay_since_last_sender_report: u32,
}

impl ReportBlock {
    /// Round-trip time in milliseconds, seen by the sender of the reported stream: `arrival` is the
    /// [`ntp_middle`] of the moment this block came in. `None` if the peer has had no report of
    /// ours yet, or if the sum is negative, as a peer that lies or a clock step makes it.
    #[must_use]
    pub fn round_trip_ms(&self, arrival: u32) -> Option<u32> {
        if self.last_sender_report == 0 {
            return None;
        }
        let elapsed = arrival.wrapping_sub(self.last_sender_report);
        let units = elapsed.checked_sub(self.delay_since_last_sender_report)?;
        u32::try_from(u64::from(units) * 1_000 / 65_536).ok()
    }
}

/// The middle 32 bits of an NTP time: seconds modulo 65,536 and 16 bits of fraction.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the middle 32 bits are what is wanted")]
pub const fn ntp_middle(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// A compound packet to send.
#[derive(Clone, Copy, Debug)]
pub struct Compound<'a> {
    /// Our SSRC.
    pub ssrc: u32,
    /// Present if we sent RTP since the last report but one; makes it a sender report.
    pub sender: Option<SenderInfo>,
    /// One block per stream heard, the first [`MAX_REPORTS`] of them.
    pub reports: &'a [ReportBlock],
    /// Canonical name: the same for a leg's whole life, and saying nothing about it (RFC 7022). Cut
    /// at 255 bytes.
    pub cname: &'a str,
    /// Whether the stream ends with this packet.
    pub bye: bool,
}

impl Compound<'_> {
    /// Writes the packet to the start of `buffer` and returns its length in bytes.
    ///
    /// # Errors
    /// [`NoRoom`] when it does not fit: 28 + 24 per report + CNAME + 20 bytes always do.
    pub fn write(&self, buffer: &mut [u8]) -> Result<usize, NoRoom> {
        let mut out = Cursor { buffer, at: 0 };
        self.write_report(&mut out)?;
        self.write_description(&mut out)?;
        if self.bye {
            out.header(BYE, 1, 1)?;
            out.u32(self.ssrc)?;
        }
        Ok(out.at)
    }

    fn write_report(&self, out: &mut Cursor<'_>) -> Result<(), NoRoom> {
        let reports = self.reports.get(..MAX_REPORTS).unwrap_or(self.reports);
        let report_words = reports.len() * REPORT_BYTES / 4;
        if let Some(info) = self.sender {
            out.header(SENDER_REPORT, reports.len(), 1 + SENDER_INFO_BYTES / 4 + report_words)?;
            out.u32(self.ssrc)?;
            out.put(&info.ntp.to_be_bytes())?;
            out.u32(info.rtp_timestamp)?;
            out.u32(info.packets)?;
            out.u32(info.octets)?;
        } else {
            out.header(RECEIVER_REPORT, reports.len(), 1 + report_words)?;
            out.u32(self.ssrc)?;
        }
        reports.iter().try_for_each(|report| write_block(out, report))
    }

    fn write_description(&self, out: &mut Cursor<'_>) -> Result<(), NoRoom> {
        let end = self.cname.floor_char_boundary(MAX_CNAME_BYTES);
        let cname = self.cname.as_bytes().get(..end).unwrap_or_default();
        // Item type, length and text, then one to four zero bytes up to the next word (§6.5).
        let item = 2 + cname.len();
        let words = item / 4 + 1;
        out.header(SOURCE_DESCRIPTION, 1, 1 + words)?;
        out.u32(self.ssrc)?;
        out.put(&[CNAME_ITEM, u8::try_from(cname.len()).map_err(|_| NoRoom)?])?;
        out.put(cname)?;
        out.put([0; 4].get(..words * 4 - item).unwrap_or_default())
    }
}

fn write_block(out: &mut Cursor<'_>, report: &ReportBlock) -> Result<(), NoRoom> {
    let [_, lost @ ..] = report.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff).to_be_bytes();
    out.u32(report.ssrc)?;
    out.put(&[report.fraction_lost])?;
    out.put(&lost)?;
    out.u32(report.highest_sequence)?;
    out.u32(report.jitter)?;
    out.u32(report.last_sender_report)?;
    out.u32(report.delay_since_last_sender_report)
}

struct Cursor<'a> {
    buffer: &'a mut [u8],
    at: usize,
}

impl Cursor<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        let end = self.at + bytes.len();
        self.buffer.get_mut(self.at..end).ok_or(NoRoom)?.copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    fn u32(&mut self, value: u32) -> Result<(), NoRoom> {
        self.put(&value.to_be_bytes())
    }

    /// `words` counts what follows the header, which is just how the length field counts.
    fn header(&mut self, packet_type: u8, count: usize, words: usize) -> Result<(), NoRoom> {
        let count = u8::try_from(count).map_err(|_| NoRoom)? & COUNT_MASK;
        self.put(&[VERSION << 6 | count, packet_type])?;
        self.put(&u16::try_from(words).map_err(|_| NoRoom)?.to_be_bytes())
    }
}

/// One packet of a compound.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// SR, type 200.
    SenderReport {
        /// Who reports.
        ssrc: u32,
        /// Its own stream.
        info: SenderInfo,
        /// The streams it hears.
        reports: Reports<'a>,
    },
    /// RR, type 201.
    ReceiverReport {
        /// Who reports.
        ssrc: u32,
        /// The streams it hears.
        reports: Reports<'a>,
    },
    /// BYE, type 203. To be noted, never to end a call: that is signalling's to say.
    Bye {
        /// The sources that leave.
        sources: Sources<'a>,
    },
    /// Any other type, SDES among them.
    Other {
        /// Its type, 0 to 255.
        packet_type: u8,
    },
}

/// The packets of a datagram that was found whole.
#[derive(Clone, Copy, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Packet<'a>;

    fn next(&mut self) -> Option<Packet<'a>> {
        let (packet, rest) = split(self.rest).ok()?;
        self.rest = rest;
        Some(packet)
    }
}

/// The report blocks of one packet, at most [`MAX_REPORTS`].
#[derive(Clone, Copy, Debug)]
pub struct Reports<'a> {
    rest: &'a [u8],
}

impl Iterator for Reports<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, rest) = self.rest.split_at_checked(REPORT_BYTES)?;
        self.rest = rest;
        let lost = read_u32(block, 4)?;
        let [fraction_lost, ..] = lost.to_be_bytes();
        Some(ReportBlock {
            ssrc: read_u32(block, 0)?,
            fraction_lost,
            // Moved up and back down again to spread the sign of 24 bits.
            cumulative_lost: (lost << 8).cast_signed() >> 8,
            highest_sequence: read_u32(block, 8)?,
            jitter: read_u32(block, 12)?,
            last_sender_report: read_u32(block, 16)?,
            delay_since_last_sender_report: read_u32(block, 20)?,
        })
    }
}

/// The sources named in a BYE, at most 31.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    rest: &'a [u8],
}

impl Iterator for Sources<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (source, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        read_u32(source, 0)
    }
}

/// Checks a whole datagram and gives out its packets.
///
/// # Errors
/// [`Malformed`] if any packet of the chain has another version, a length or count that does not
/// fit, or padding before the last packet.
pub fn parse(datagram: &[u8]) -> Result<Packets<'_>, Malformed> {
    if datagram.len() < MIN_BYTES {
        return Err(Malformed::TooShort);
    }
    let mut rest = datagram;
    while !rest.is_empty() {
        (_, rest) = split(rest)?;
    }
    Ok(Packets { rest: datagram })
}

/// Takes the first packet off a chain.
fn split(chain: &[u8]) -> Result<(Packet<'_>, &[u8]), Malformed> {
    let (header, after) = chain.split_first_chunk::<HEADER_BYTES>().ok_or(Malformed::TooShort)?;
    let [first, packet_type, length @ ..] = *header;
    if first >> 6 != VERSION {
        return Err(Malformed::Version);
    }
    let length = 4 * usize::from(u16::from_be_bytes(length));
    let (mut body, rest) = after.split_at_checked(length).ok_or(Malformed::Length)?;
    if first & PADDING_BIT != 0 {
        body = without_padding(body, rest)?;
    }
    let count = usize::from(first & COUNT_MASK);
    Ok((read(packet_type, count, body)?, rest))
}

/// Only the last packet of a compound may be padded (RFC 3550 §6.4.1).
fn without_padding<'a>(body: &'a [u8], rest: &[u8]) -> Result<&'a [u8], Malformed> {
    let padding = body.last().map_or(0, |&count| usize::from(count));
    if padding == 0 || !rest.is_empty() {
        return Err(Malformed::Padding);
    }
    let kept = body.len().checked_sub(padding).ok_or(Malformed::Padding)?;
    body.get(..kept).ok_or(Malformed::Padding)
}

fn read(packet_type: u8, count: usize, body: &[u8]) -> Result<Packet<'_>, Malformed> {
    Ok(match packet_type {
        SENDER_REPORT => {
            let info = SenderInfo {
                ntp: u64::from(word(body, 4)?) << 32 | u64::from(word(body, 8)?),
                rtp_timestamp: word(body, 12)?,
                packets: word(body, 16)?,
                octets: word(body, 20)?,
            };
            let reports =
                Reports { rest: slice(body, 4 + SENDER_INFO_BYTES, count * REPORT_BYTES)? };
            Packet::SenderReport { ssrc: word(body, 0)?, info, reports }
        }
        RECEIVER_REPORT => Packet::ReceiverReport {
            ssrc: word(body, 0)?,
            reports: Reports { rest: slice(body, 4, count * REPORT_BYTES)? },
        },
        BYE => Packet::Bye { sources: Sources { rest: slice(body, 0, count * 4)? } },
        packet_type => Packet::Other { packet_type },
    })
}

fn word(body: &[u8], at: usize) -> Result<u32, Malformed> {
    read_u32(body, at).ok_or(Malformed::Length)
}

fn slice(body: &[u8], at: usize, len: usize) -> Result<&[u8], Malformed> {
    body.get(at..at + len).ok_or(Malformed::Length)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "test signals are made to fit")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INFO: SenderInfo =
        SenderInfo { ntp: 0x0123_4567_89ab_cdef, rtp_timestamp: 11, packets: 22, octets: 33 };
    const BLOCK: ReportBlock = ReportBlock {
        ssrc: 7,
        fraction_lost: 64,
        cumulative_lost: -3,
        highest_sequence: 0x0001_ffff,
        jitter: 40,
        last_sender_report: 0x4567_89ab,
        delay_since_last_sender_report: 65_536,
    };

    fn write(compound: Compound<'_>) -> Vec<u8> {
        let mut buffer = [0xee; 1_500];
        let len = compound.write(&mut buffer).unwrap();
        buffer[..len].to_vec()
    }

    fn compound<'a>(cname: &'a str, reports: &'a [ReportBlock]) -> Compound<'a> {
        Compound { ssrc: 9, sender: Some(INFO), reports, cname, bye: true }
    }

    #[test]
    fn a_sender_report_is_read_back() {
        let bytes = write(compound("leg", &[BLOCK, BLOCK]));
        let packets: Vec<_> = parse(&bytes).unwrap().collect();
        let [
            Packet::SenderReport { ssrc: 9, info, reports },
            Packet::Other { packet_type: 202 },
            Packet::Bye { sources },
        ] = packets[..]
        else {
            panic!("{packets:?}");
        };
        assert_eq!(info, INFO);
        assert_eq!(reports.collect::<Vec<_>>(), [BLOCK, BLOCK]);
        assert_eq!(sources.collect::<Vec<_>>(), [9]);
    }

    #[test]
    fn without_sender_info_it_is_a_receiver_report() {
        let bytes = write(Compound { sender: None, bye: false, ..compound("leg", &[BLOCK]) });
        assert_eq!(bytes[..4], [0x81, 201, 0, 7]);
        let packets: Vec<_> = parse(&bytes).unwrap().collect();
        assert!(matches!(packets[0], Packet::ReceiverReport { ssrc: 9, .. }));
        assert_eq!(packets.len(), 2);
    }

    #[test]
    fn the_description_ends_in_zeros_on_a_word_for_every_name_length() {
        for len in 0..=300 {
            let cname = "x".repeat(len);
            let bytes = write(Compound { sender: None, bye: false, ..compound(&cname, &[]) });
            assert!(bytes.len().is_multiple_of(4));
            assert_eq!(bytes.last(), Some(&0));
            assert_eq!(bytes[8..10], [0x81, 202]);
            assert_eq!(usize::from(bytes[17]), len.min(255));
            assert_eq!(parse(&bytes).unwrap().count(), 2);
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let cname = "é".repeat(200);
        let bytes = write(Compound { sender: None, ..compound(&cname, &[]) });
        assert_eq!(bytes[17], 254);
    }

    #[test]
    fn a_buffer_too_small_is_refused_at_every_length() {
        let whole = write(compound("leg", &[BLOCK])).len();
        for len in 0..whole {
            assert_eq!(compound("leg", &[BLOCK]).write(&mut vec![0; len]), Err(NoRoom));
        }
    }

    #[test]
    fn more_reports_than_fit_are_left_out() {
        let bytes = write(compound("leg", &[BLOCK; 40]));
        let Some(Packet::SenderReport { reports, .. }) = parse(&bytes).unwrap().next() else {
            panic!("no report");
        };
        assert_eq!(reports.count(), MAX_REPORTS);
    }

    #[test]
    fn losses_are_held_to_twenty_four_bits() {
        for (given, expected) in [(i32::MAX, 0x7f_ffff), (i32::MIN, -0x80_0000), (-1, -1)] {
            let block = ReportBlock { cumulative_lost: given, ..BLOCK };
            let bytes = write(compound("", &[block]));
            let Some(Packet::SenderReport { mut reports, .. }) = parse(&bytes).unwrap().next()
            else {
                panic!("no report");
            };
            assert_eq!(reports.next().unwrap().cumulative_lost, expected);
        }
    }

    #[test]
    fn round_trip_time_is_what_is_left_of_the_delay() {
        let sent = ntp_middle(INFO.ntp);
        assert_eq!(sent, BLOCK.last_sender_report);
        // One second spent at the peer, a quarter of a second on the way.
        assert_eq!(BLOCK.round_trip_ms(sent + 65_536 + 16_384), Some(250));
        assert_eq!(BLOCK.round_trip_ms(sent), None);
        assert_eq!(ReportBlock::default().round_trip_ms(5), None);
    }

    #[test]
    fn lengths_counts_and_padding_that_lie_are_refused() {
        let good = write(compound("leg", &[BLOCK]));
        assert!(parse(&good).is_ok());
        for len in 0..good.len() {
            let cut = parse(&good[..len]);
            let at_a_packet_border = [52, 68].contains(&len);
            assert_eq!(cut.is_ok(), at_a_packet_border, "{len}");
        }
        let mut two_reports = good.clone();
        two_reports[0] |= 2;
        assert_eq!(parse(&two_reports).unwrap_err(), Malformed::Length);
        let mut padded_early = good.clone();
        padded_early[0] |= PADDING_BIT;
        assert_eq!(parse(&padded_early).unwrap_err(), Malformed::Padding);
        let mut version = good;
        version[0] ^= 0x40;
        assert_eq!(parse(&version).unwrap_err(), Malformed::Version);
    }

    #[test]
    fn padding_of_the_last_packet_is_taken_off() {
        let mut bytes = vec![0xa1, BYE, 0, 2, 0, 0, 0, 5, 0, 0, 0, 4];
        let Some(Packet::Bye { sources }) = parse(&bytes).unwrap().next() else { panic!() };
        assert_eq!(sources.collect::<Vec<_>>(), [5]);
        for padding in [0, 5, 8, 9, 255] {
            *bytes.last_mut().unwrap() = padding;
            assert!(parse(&bytes).is_err(), "{padding}");
        }
    }

    #[test]
    fn every_length_to_64_of_every_type_is_survived() {
        for packet_type in 192..=223 {
            for len in 0..=64 {
                lies_about(packet_type, len);
            }
        }
    }

    fn lies_about(packet_type: u8, len: usize) {
        for first in [0x80, 0x81, 0x9f, 0xa0, 0xbf] {
            for words in [0, 1, 6, (len / 4).saturating_sub(1), 0xffff] {
                let mut bytes = vec![first; len];
                let header = [first, packet_type, (words >> 8) as u8, words as u8];
                let head = len.min(4);
                bytes[..head].copy_from_slice(&header[..head]);
                drain(&bytes);
            }
        }
    }

    fn drain(bytes: &[u8]) {
        for packet in parse(bytes).into_iter().flatten() {
            match packet {
                Packet::SenderReport { reports, .. } | Packet::ReceiverReport { reports, .. } => {
                    assert!(reports.count() <= MAX_REPORTS);
                }
                Packet::Bye { sources } => assert!(sources.count() <= MAX_REPORTS),
                Packet::Other { .. } => {}
            }
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drain(&bytes);
        }

        #[test]
        fn mutations_of_a_good_packet_never_panic(
            at in 0_usize..76, value: u8, cut in 0_usize..=76,
        ) {
            let mut bytes = write(compound("leg", &[BLOCK]));
            let last = bytes.len() - 1;
            bytes[at.min(last)] = value;
            bytes.truncate(cut);
            drain(&bytes);
        }
    }
}

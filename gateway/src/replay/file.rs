//! Packets out of a capture file: libpcap's format and pcapng, in either byte order.
//!
//! A file that breaks off in the middle gives what stands before the break: captures are cut by full
//! disks and killed programs. Only a file that is neither format is refused. Nothing is set aside
//! for a length that the file merely claims.

use std::fmt;

use pcap_file::Endianness;
use pcap_file::pcap::PcapParser;
use pcap_file::pcapng::PcapNgParser;

/// First block of a pcapng file, the same in either byte order.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// pcapng block types that hold a packet (draft-ietf-opsawg-pcapng §4).
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// One packet as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    /// The link type, one of the registry's LINKTYPE values.
    pub(super) link: u32,
    /// The bytes that were kept.
    pub(super) bytes: &'a [u8],
    /// True when the capture kept fewer bytes than there were.
    pub(super) cut: bool,
}

/// How a file ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// After its last packet.
    Whole,
    /// In the middle of one, or with something that is none.
    BrokenOff,
}

/// The file is no capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotACapture;

impl fmt::Display for NotACapture {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("neither pcap nor pcapng")
    }
}

impl std::error::Error for NotACapture {}

/// Hands every packet to `each`, in the order of the file, until `each` says that it has enough.
///
/// # Errors
/// [`NotACapture`] when the file is of another format.
pub(super) fn read<'a>(
    bytes: &'a [u8],
    each: &mut dyn FnMut(Packet<'a>) -> bool,
) -> Result<End, NotACapture> {
    if bytes.starts_with(&PCAPNG) { read_pcapng(bytes, each) } else { read_pcap(bytes, each) }
}

fn read_pcap<'a>(
    bytes: &'a [u8],
    each: &mut dyn FnMut(Packet<'a>) -> bool,
) -> Result<End, NotACapture> {
    let (mut rest, parser) = PcapParser::new(bytes).map_err(|_| NotACapture)?;
    let link = u32::from(parser.header().datalink);
    while !rest.is_empty() {
        let before = rest;
        let Ok((after, raw)) = parser.next_raw_packet(before) else { return Ok(End::BrokenOff) };
        // The record is the end of what was read: sixteen bytes of header, then the packet.
        let used = before.len().saturating_sub(after.len());
        let kept = before.get(used.saturating_sub(raw.data.len())..used).unwrap_or_default();
        let cut = raw.orig_len > raw.incl_len;
        if !each(Packet { link, bytes: kept, cut }) {
            return Ok(End::Whole);
        }
        rest = after;
    }
    Ok(End::Whole)
}

fn read_pcapng<'a>(
    bytes: &'a [u8],
    each: &mut dyn FnMut(Packet<'a>) -> bool,
) -> Result<End, NotACapture> {
    let (mut rest, mut parser) = PcapNgParser::new(bytes).map_err(|_| NotACapture)?;
    while !rest.is_empty() {
        let before = rest;
        let Ok((after, block)) = parser.next_raw_block(before) else { return Ok(End::BrokenOff) };
        let used = before.len().saturating_sub(after.len());
        let whole = before.get(..used).unwrap_or_default();
        // Type and length stand before a block's body, the length once more behind it.
        let body = whole.get(8..used.saturating_sub(4)).unwrap_or_default();
        let number = |at: usize| number(parser.section().endianness, body, at);
        if let Some((interface, kept, original)) = packet_of(block.type_, body, &number) {
            let link = usize::try_from(interface)
                .ok()
                .and_then(|at| parser.interfaces().get(at))
                .map(|interface| u32::from(interface.linktype));
            let cut = usize::try_from(original).is_ok_and(|original| original > kept.len());
            let wanted = link.is_none_or(|link| each(Packet { link, bytes: kept, cut }));
            if !wanted {
                return Ok(End::Whole);
            }
        }
        if used == 0 {
            return Ok(End::BrokenOff);
        }
        rest = after;
    }
    Ok(End::Whole)
}

/// Interface, bytes and original length of a block's packet, when it holds one.
fn packet_of<'a>(
    kind: u32,
    body: &'a [u8],
    number: &dyn Fn(usize) -> Option<u32>,
) -> Option<(u32, &'a [u8], u32)> {
    let take = |at: usize, length: u32| {
        let length = usize::try_from(length).ok()?;
        body.get(at..at.checked_add(length)?)
    };
    match kind {
        ENHANCED_PACKET => Some((number(0)?, take(20, number(12)?)?, number(16)?)),
        // The obsolete block has the interface in its first two bytes and a drop count behind.
        OBSOLETE_PACKET => {
            let first = number(0)?;
            let interface = if first <= 0xffff { first } else { first >> 16 };
            Some((interface, take(20, number(12)?)?, number(16)?))
        }
        SIMPLE_PACKET => {
            let original = number(0)?;
            let kept = body.get(4..)?;
            let length = usize::try_from(original).ok()?.min(kept.len());
            Some((0, kept.get(..length)?, original))
        }
        _ => None,
    }
}

fn number(order: Endianness, body: &[u8], at: usize) -> Option<u32> {
    let (four, _) = body.get(at..)?.split_first_chunk::<4>()?;
    Some(match order {
        Endianness::Big => u32::from_be_bytes(*four),
        Endianness::Little => u32::from_le_bytes(*four),
    })
}

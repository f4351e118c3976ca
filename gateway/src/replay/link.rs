//! From a captured frame to what a UDP or TCP port got.
//!
//! ```text
//!  Ethernet, VLAN ─┐                        ┌─► UDP ─► datagram
//!  Linux cooked ───┼─► IPv4, IPv6 ─ pieces ─┤
//!  null, loop, raw ┘      ▲                 ├─► TCP ─► segment
//!                         └─ IP in IP, GRE, ERSPAN (at most four deep)
//! ```

use std::net::{IpAddr, SocketAddr};

use etherparse::{EtherType, Ipv6ExtensionSlice, LaxNetSlice, LaxSlicedPacket, TcpSlice, UdpSlice};

use super::file::Packet;
use super::fragment::{Fragments, Key, Piece};

/// Link types of the registry that are read (<https://www.tcpdump.org/linktypes.html>).
const NULL: u32 = 0;
const ETHERNET: u32 = 1;
const RAW: [u32; 5] = [12, 14, 101, 228, 229];
const LOOP: u32 = 108;
const COOKED: u32 = 113;
const COOKED_2: u32 = 276;

/// Tunnels within tunnels that are followed.
const MAX_DEPTH: u8 = 4;

const ETHER_IPV4: u16 = 0x0800;
const ETHER_IPV6: u16 = 0x86dd;
/// Transparent Ethernet bridging in GRE (RFC 7637), and ERSPAN of types I/II and III.
const ETHER_BRIDGED: u16 = 0x6558;
const ERSPAN_2: u16 = 0x88be;
const ERSPAN_3: u16 = 0x22eb;

/// What arrived at a port.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival<'a> {
    /// A UDP datagram.
    Datagram { from: SocketAddr, to: SocketAddr, bytes: &'a [u8] },
    /// A TCP segment.
    Segment { from: SocketAddr, to: SocketAddr, segment: Segment<'a> },
}

/// A TCP segment (RFC 9293 §3.1), as far as reassembly needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) sequence: u32,
    pub(super) syn: bool,
    /// FIN or RST: nothing follows.
    pub(super) last: bool,
    pub(super) bytes: &'a [u8],
}

/// Unwraps frames; keeps the pieces of packets that are not whole yet.
#[derive(Debug, Default)]
pub(super) struct Unwrap {
    fragments: Fragments,
}

impl Unwrap {
    /// Hands on what the frame brought to a port, if it did. `false` for a link type that is not
    /// read.
    pub(super) fn frame(&mut self, packet: Packet<'_>, each: &mut dyn FnMut(Arrival<'_>)) -> bool {
        let bytes = packet.bytes;
        let rest = |at: usize| bytes.get(at..).unwrap_or_default();
        match packet.link {
            ETHERNET => self.ethernet(bytes, MAX_DEPTH, each),
            COOKED => self.ether(number(bytes, 14), rest(16), MAX_DEPTH, each),
            COOKED_2 => self.ether(number(bytes, 0), rest(20), MAX_DEPTH, each),
            NULL | LOOP => self.ip(rest(4), MAX_DEPTH, each),
            link if RAW.contains(&link) => self.ip(bytes, MAX_DEPTH, each),
            _ => return false,
        }
        true
    }

    /// Packets whose other pieces never came.
    pub(super) fn unfinished(&self) -> usize {
        self.fragments.unfinished()
    }

    fn ethernet(&mut self, bytes: &[u8], depth: u8, each: &mut dyn FnMut(Arrival<'_>)) {
        self.ether(number(bytes, 12), bytes.get(14..).unwrap_or_default(), depth, each);
    }

    /// IP by its version, whatever announced it.
    fn ip(&mut self, bytes: &[u8], depth: u8, each: &mut dyn FnMut(Arrival<'_>)) {
        let kind = match bytes.first().map(|first| first >> 4) {
            Some(4) => ETHER_IPV4,
            Some(6) => ETHER_IPV6,
            _ => return,
        };
        self.ether(Some(kind), bytes, depth, each);
    }

    fn ether(
        &mut self,
        kind: Option<u16>,
        bytes: &[u8],
        depth: u8,
        each: &mut dyn FnMut(Arrival<'_>),
    ) {
        let (Some(kind), Some(depth)) = (kind, depth.checked_sub(1)) else { return };
        let sliced = LaxSlicedPacket::from_ether_type(EtherType(kind), bytes);
        let Some(net) = &sliced.net else { return };
        let Some((key, offset, more, payload)) = addressed(net) else { return };
        if offset == 0 && !more {
            return self.payload(key, payload, depth, each);
        }
        let piece = Piece { offset, more, bytes: payload };
        if let Some(whole) = self.fragments.add(key, piece) {
            self.payload(key, &whole, depth, each);
        }
    }

    fn payload(&mut self, key: Key, bytes: &[u8], depth: u8, each: &mut dyn FnMut(Arrival<'_>)) {
        match key.protocol {
            17 => {
                if let Ok(udp) = UdpSlice::from_slice_lax(bytes) {
                    let from = SocketAddr::new(key.from, udp.source_port());
                    let to = SocketAddr::new(key.to, udp.destination_port());
                    each(Arrival::Datagram { from, to, bytes: udp.payload() });
                }
            }
            6 => {
                if let Ok(tcp) = TcpSlice::from_slice(bytes) {
                    let from = SocketAddr::new(key.from, tcp.source_port());
                    let to = SocketAddr::new(key.to, tcp.destination_port());
                    let segment = Segment {
                        sequence: tcp.sequence_number(),
                        syn: tcp.syn(),
                        last: tcp.fin() || tcp.rst(),
                        bytes: tcp.payload(),
                    };
                    each(Arrival::Segment { from, to, segment });
                }
            }
            4 | 41 => self.ip(bytes, depth, each),
            47 => self.gre(bytes, depth, each),
            _ => {}
        }
    }

    /// GRE (RFC 2784, RFC 2890) with IP, Ethernet or ERSPAN inside.
    fn gre(&mut self, bytes: &[u8], depth: u8, each: &mut dyn FnMut(Arrival<'_>)) {
        let (Some(flags), Some(kind)) = (number(bytes, 0), number(bytes, 2)) else { return };
        let (checksum, key, sequence) = (flags & 0x8000, flags & 0x2000, flags & 0x1000);
        let options = [checksum, key, sequence].iter().filter(|flag| **flag != 0).count();
        let inner = bytes.get(4 + 4 * options..).unwrap_or_default();
        match kind {
            ETHER_BRIDGED => self.ethernet(inner, depth, each),
            // Type I has neither sequence number nor header of its own.
            ERSPAN_2 if sequence == 0 => self.ethernet(inner, depth, each),
            ERSPAN_2 => self.ethernet(inner.get(8..).unwrap_or_default(), depth, each),
            ERSPAN_3 => self.ethernet(inner.get(12..).unwrap_or_default(), depth, each),
            _ => self.ether(Some(kind), inner, depth, each),
        }
    }
}

/// Addresses, place within its packet and payload of an IP packet.
fn addressed<'a>(net: &LaxNetSlice<'a>) -> Option<(Key, usize, bool, &'a [u8])> {
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let key = Key {
                from: IpAddr::V4(header.source_addr()),
                to: IpAddr::V4(header.destination_addr()),
                protocol: ip.payload().ip_number.0,
                identification: u32::from(header.identification()),
            };
            let offset = usize::from(header.fragments_offset().byte_offset());
            Some((key, offset, header.more_fragments(), ip.payload().payload))
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let piece = ip.extensions().clone().into_iter().find_map(|extension| match extension {
                Ipv6ExtensionSlice::Fragment(piece) => Some(piece),
                _ => None,
            });
            let key = Key {
                from: IpAddr::V6(header.source_addr()),
                to: IpAddr::V6(header.destination_addr()),
                protocol: ip.payload().ip_number.0,
                identification: piece.as_ref().map_or(0, |piece| piece.identification()),
            };
            let offset = piece
                .as_ref()
                .map_or(0, |piece| usize::from(piece.fragment_offset().byte_offset()));
            let more = piece.as_ref().is_some_and(|piece| piece.more_fragments());
            Some((key, offset, more, ip.payload().payload))
        }
        LaxNetSlice::Arp(_) => None,
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    let (two, _) = bytes.get(at..)?.split_first_chunk::<2>()?;
    Some(u16::from_be_bytes(*two))
}

//! IP packets that were sent in pieces (RFC 791 §3.2, RFC 8200 §4.5).
//!
//! What overlaps is not written twice: the first piece stays, as captures hold the same packet more
//! than once. At most [`MAX_OPEN`] packets wait for their rest; the oldest gives way.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

/// Packets that may wait for more pieces.
const MAX_OPEN: usize = 64;

/// The most an IP packet holds.
const MAX_BYTES: usize = 65_535;

/// Which packet a piece belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) from: IpAddr,
    pub(super) to: IpAddr,
    pub(super) protocol: u8,
    pub(super) identification: u32,
}

/// Where a piece belongs within its packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    /// Bytes before it.
    pub(super) offset: usize,
    /// More pieces follow.
    pub(super) more: bool,
    pub(super) bytes: &'a [u8],
}

#[derive(Debug, Default)]
struct Open {
    pieces: BTreeMap<usize, Vec<u8>>,
    length: Option<usize>,
}

impl Open {
    /// The whole packet, once there is no hole.
    fn whole(&self) -> Option<Vec<u8>> {
        let length = self.length?;
        let mut bytes = Vec::new();
        for (&offset, piece) in &self.pieces {
            let known = bytes.len().checked_sub(offset)?;
            bytes.extend_from_slice(piece.get(known..).unwrap_or_default());
        }
        (bytes.len() >= length).then(|| {
            bytes.truncate(length);
            bytes
        })
    }
}

/// The packets that wait for more pieces, oldest first.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    open: VecDeque<(Key, Open)>,
}

impl Fragments {
    /// Takes a piece; the whole packet's payload when it was the last one missing.
    pub(super) fn add(&mut self, key: Key, piece: Piece<'_>) -> Option<Vec<u8>> {
        let end = piece.offset.checked_add(piece.bytes.len())?;
        if end > MAX_BYTES {
            return None;
        }
        let at = self.open.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            if self.open.len() == MAX_OPEN {
                self.open.pop_front();
            }
            self.open.push_back((key, Open::default()));
            self.open.len() - 1
        });
        let (_, open) = self.open.get_mut(at)?;
        open.pieces.entry(piece.offset).or_insert_with(|| piece.bytes.to_vec());
        if !piece.more {
            open.length = open.length.or(Some(end));
        }
        let whole = open.whole()?;
        self.open.remove(at);
        Some(whole)
    }

    /// Packets that never became whole.
    pub(super) fn unfinished(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(identification: u32) -> Key {
        let here = IpAddr::from([127, 0, 0, 1]);
        Key { from: here, to: here, protocol: 17, identification }
    }

    fn piece(offset: usize, more: bool, bytes: &[u8]) -> Piece<'_> {
        Piece { offset, more, bytes }
    }

    #[test]
    fn pieces_in_any_order_and_twice_become_one_packet() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.add(key(1), piece(8, true, b"bbbbbbbb")), None);
        assert_eq!(fragments.add(key(1), piece(16, false, b"cc")), None);
        assert_eq!(fragments.add(key(1), piece(8, true, b"bbbbbbbb")), None);
        let whole = fragments.add(key(1), piece(0, true, b"aaaaaaaa"));
        assert_eq!(whole.as_deref(), Some(&b"aaaaaaaabbbbbbbbcc"[..]));
        assert_eq!(fragments.unfinished(), 0);
    }

    #[test]
    fn the_oldest_unfinished_packet_gives_way_and_nothing_grows() {
        let mut fragments = Fragments::default();
        for identification in 0..1_000 {
            assert_eq!(fragments.add(key(identification), piece(0, true, b"aaaaaaaa")), None);
        }
        assert_eq!(fragments.unfinished(), MAX_OPEN);
        assert_eq!(fragments.add(key(0), piece(8, false, b"b")), None);
        let whole = fragments.add(key(999), piece(8, false, b"b"));
        assert_eq!(whole.as_deref(), Some(&b"aaaaaaaab"[..]));
    }

    #[test]
    fn a_piece_beyond_the_end_of_any_packet_is_dropped() {
        let mut fragments = Fragments::default();
        assert_eq!(fragments.add(key(1), piece(65_528, false, &[0; 64])), None);
        assert_eq!(fragments.unfinished(), 0);
    }
}

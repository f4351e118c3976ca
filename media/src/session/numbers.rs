//! The random numbers that a leg begins with (RFC 3550 §5.1, §8.1).

/// The random numbers of a leg, cut from its entropy.
pub(super) struct Numbers {
    pub(super) ssrc: u32,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) intervals: u64,
    pub(super) name: [u8; 8],
}

impl From<[u8; 32]> for Numbers {
    fn from(entropy: [u8; 32]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, rest @ ..] = entropy;
        let (words, _) = rest.as_chunks::<8>();
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        Self {
            ssrc: u32::from_be_bytes([a, b, c, d]),
            // The upper half is left out so that an SRTP receiver that misses the first packets
            // cannot mistake the rollover counter (RFC 3711 §3.3.1).
            sequence: u16::from_be_bytes([e, f]) & 0x7fff,
            timestamp: u32::from_be_bytes([g, h, i, j]),
            // Never zero: the generator of intervals would stand still.
            intervals: u64::from_be_bytes(word(0)) | 1,
            name: word(1),
        }
    }
}

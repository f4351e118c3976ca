//! G.711 µ-law and A-law, exact to ITU-T Recommendation G.711 for all 65,536 linear values.
//!
//! Encoding looks up the upper 14 bits of a sample in a table of 16 KiB; µ-law uses all 14 and
//! A-law 13 of them, so nothing is lost by it. Decoding looks up the code byte. The tables are
//! computed by the compiler from the segment formula.
//!
//! Both laws are logarithmic with eight segments of sixteen steps per sign:
//!
//! ```text
//! µ-law  14 bits, bias 33: |x| + 33 = 1 m m m m . . .   segment = position of the leading one − 5
//! A-law  12 bits:          |x|      = 1 m m m m . . .   segment 0 and 1 have equal steps
//! ```

/// Entries of an encoding table: one per value of the upper 14 bits.
const ENCODE_ENTRIES: usize = 1 << 14;

static ULAW_ENCODE: [u8; ENCODE_ENTRIES] = encode_table(true);
static ALAW_ENCODE: [u8; ENCODE_ENTRIES] = encode_table(false);
static ULAW_DECODE: [i16; 256] = decode_table(true);
static ALAW_DECODE: [i16; 256] = decode_table(false);
static ULAW_TO_ALAW: [u8; 256] = transcode_table(true);
static ALAW_TO_ULAW: [u8; 256] = transcode_table(false);

/// A codec the product can turn into frames and back. Both are RTP clock 8,000 Hz, one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// µ-law, RTP payload type 0.
    Pcmu,
    /// A-law, RTP payload type 8.
    Pcma,
}

impl Codec {
    /// Static RTP payload type (RFC 3551 table 4).
    #[must_use]
    pub const fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
        }
    }

    /// Encoding name as SDP writes it (RFC 3551 §4.5.14).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
        }
    }

    /// RTP clock, in Hz.
    #[must_use]
    pub const fn clock_rate_hz(self) -> u32 {
        8_000
    }

    /// The codec with this encoding name, whatever its case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pcmu, Self::Pcma].into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    /// The codec of this static payload type.
    #[must_use]
    pub const fn from_payload_type(payload_type: u8) -> Option<Self> {
        match payload_type {
            0 => Some(Self::Pcmu),
            8 => Some(Self::Pcma),
            _ => None,
        }
    }

    /// The code byte of a zero sample.
    #[must_use]
    pub const fn silence(self) -> u8 {
        match self {
            Self::Pcmu => 0xff,
            Self::Pcma => 0xd5,
        }
    }

    /// Encodes sample by sample and returns how many were written: the smaller of the two lengths.
    pub fn encode(self, samples: &[i16], codes: &mut [u8]) -> usize {
        let pairs = samples.iter().zip(codes.iter_mut());
        match self {
            Self::Pcmu => pairs.for_each(|(&sample, code)| *code = ulaw_encode(sample)),
            Self::Pcma => pairs.for_each(|(&sample, code)| *code = alaw_encode(sample)),
        }
        samples.len().min(codes.len())
    }

    /// Decodes byte by byte and returns how many were written: the smaller of the two lengths.
    pub fn decode(self, codes: &[u8], samples: &mut [i16]) -> usize {
        let table = match self {
            Self::Pcmu => &ULAW_DECODE,
            Self::Pcma => &ALAW_DECODE,
        };
        for (&code, sample) in codes.iter().zip(samples.iter_mut()) {
            *sample = decode_with(table, code);
        }
        samples.len().min(codes.len())
    }

    /// Turns codes of this codec into codes of `other`, in place: the code of `other` that comes
    /// nearest, which is what decoding and encoding again would give.
    pub fn transcode(self, other: Self, codes: &mut [u8]) {
        let table = match (self, other) {
            (Self::Pcmu, Self::Pcma) => &ULAW_TO_ALAW,
            (Self::Pcma, Self::Pcmu) => &ALAW_TO_ULAW,
            (Self::Pcmu, Self::Pcmu) | (Self::Pcma, Self::Pcma) => return,
        };
        for code in codes {
            *code = transcode_with(table, *code);
        }
    }
}

/// One linear sample to its µ-law code.
#[must_use]
pub fn ulaw_encode(sample: i16) -> u8 {
    encode_with(&ULAW_ENCODE, sample)
}

/// One µ-law code to its linear sample, scaled to 16 bits.
#[must_use]
pub fn ulaw_decode(code: u8) -> i16 {
    decode_with(&ULAW_DECODE, code)
}

/// One linear sample to its A-law code.
#[must_use]
pub fn alaw_encode(sample: i16) -> u8 {
    encode_with(&ALAW_ENCODE, sample)
}

/// One A-law code to its linear sample, scaled to 16 bits.
#[must_use]
pub fn alaw_decode(code: u8) -> i16 {
    decode_with(&ALAW_DECODE, code)
}

#[expect(clippy::indexing_slicing, reason = "16 bits shifted right by two are below 2^14")]
fn encode_with(table: &[u8; ENCODE_ENTRIES], sample: i16) -> u8 {
    table[usize::from(sample.cast_unsigned() >> 2)]
}

#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
fn decode_with(table: &[i16; 256], code: u8) -> i16 {
    table[usize::from(code)]
}

#[expect(clippy::indexing_slicing, reason = "a byte is below 256")]
fn transcode_with(table: &[u8; 256], code: u8) -> u8 {
    table[usize::from(code)]
}

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated by the compiler; the loop bound is the table length, a 16-bit quantity"
)]
const fn encode_table(ulaw: bool) -> [u8; ENCODE_ENTRIES] {
    let mut table = [0; ENCODE_ENTRIES];
    let mut at = 0;
    while at < ENCODE_ENTRIES {
        let sample = ((at << 2) as u16).cast_signed();
        table[at] = if ulaw { ulaw_formula(sample) } else { alaw_formula(sample) };
        at += 1;
    }
    table
}

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated by the compiler; the loop bound is the table length, an 8-bit quantity"
)]
const fn decode_table(ulaw: bool) -> [i16; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        table[at] = if ulaw { ulaw_inverse(at as u8) } else { alaw_inverse(at as u8) };
        at += 1;
    }
    table
}

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated by the compiler; the loop bound is the table length, an 8-bit quantity"
)]
const fn transcode_table(from_ulaw: bool) -> [u8; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let code = at as u8;
        table[at] = if from_ulaw {
            alaw_formula(ulaw_inverse(code))
        } else {
            ulaw_formula(alaw_inverse(code))
        };
        at += 1;
    }
    table
}

/// Table 2a/G.711. Negative values are taken by one's complement, as the ITU reference does.
#[expect(clippy::cast_possible_truncation, reason = "segment and step are masked to 7 bits")]
const fn ulaw_formula(sample: i16) -> u8 {
    const BIAS: u16 = 33;
    const LARGEST: u16 = 0x1fff;
    let magnitude = if sample < 0 { (!sample).cast_unsigned() } else { sample.cast_unsigned() };
    let mut biased = (magnitude >> 2) + BIAS;
    if biased > LARGEST {
        biased = LARGEST;
    }
    // BIAS has its leading one at bit 5, so the segment is counted from there.
    let segment = (15 - biased.leading_zeros()) - 5;
    let step = (biased >> (segment + 1)) & 0x0f;
    let code = (segment << 4) as u8 | step as u8;
    let sign = if sample < 0 { 0x00 } else { 0x80 };
    sign | (!code & 0x7f)
}

/// Table 1a/G.711, with the even bits inverted.
#[expect(clippy::cast_possible_truncation, reason = "segment and step are masked to 7 bits")]
const fn alaw_formula(sample: i16) -> u8 {
    const EVEN_BITS: u8 = 0x55;
    let magnitude = if sample < 0 { (!sample).cast_unsigned() } else { sample.cast_unsigned() };
    let value = magnitude >> 4;
    let code = if value < 32 {
        // The two lowest segments have the same step of two.
        value as u8
    } else {
        let segment = (15 - value.leading_zeros()) - 3;
        let step = (value >> (segment - 1)) & 0x0f;
        (segment << 4) as u8 | step as u8
    };
    let sign = if sample < 0 { 0x00 } else { 0x80 };
    (sign | code) ^ EVEN_BITS
}

const fn ulaw_inverse(code: u8) -> i16 {
    let bits = !code;
    let segment = (bits >> 4) & 0x07;
    let step = (bits & 0x0f) as i16;
    // Middle of the step in 14 bits, bias taken off, then scaled to 16 bits.
    let magnitude = ((((step << 1) + 33) << segment) - 33) << 2;
    if code & 0x80 == 0 { -magnitude } else { magnitude }
}

const fn alaw_inverse(code: u8) -> i16 {
    let bits = code ^ 0x55;
    let segment = (bits >> 4) & 0x07;
    let step = (bits & 0x0f) as i16;
    let magnitude =
        if segment == 0 { (step << 4) + 8 } else { ((step << 4) + 0x108) << (segment - 1) };
    if bits & 0x80 == 0 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn well_known_codes() {
        assert_eq!(ulaw_encode(0), 0xff);
        assert_eq!(ulaw_encode(i16::MAX), 0x80);
        assert_eq!(ulaw_encode(i16::MIN), 0x00);
        assert_eq!(ulaw_decode(0x00), -32_124);
        assert_eq!(ulaw_decode(0x80), 32_124);
        assert_eq!(ulaw_decode(0xff), 0);
        assert_eq!(alaw_encode(0), 0xd5);
        assert_eq!(alaw_encode(-1), 0x55);
        assert_eq!(alaw_encode(-8), 0x55);
        assert_eq!(alaw_encode(i16::MAX), 0xaa);
        assert_eq!(alaw_encode(i16::MIN), 0x2a);
        assert_eq!(alaw_decode(0x2a), -32_256);
        assert_eq!(alaw_decode(0xd5), 8);
    }

    #[test]
    fn every_code_survives_decoding_and_encoding() {
        for code in 0..=255_u8 {
            assert_eq!(alaw_encode(alaw_decode(code)), code);
            // µ-law has two zeros; the negative one becomes the positive one.
            let expected = if code == 0x7f { 0xff } else { code };
            assert_eq!(ulaw_encode(ulaw_decode(code)), expected);
        }
    }

    #[test]
    fn encoding_never_decreases_with_the_sample() {
        for law in [Codec::Pcmu, Codec::Pcma] {
            let mut last = i16::MIN;
            for sample in i16::MIN..=i16::MAX {
                let (mut code, mut back) = ([0], [0]);
                law.encode(&[sample], &mut code);
                law.decode(&code, &mut back);
                assert!(back[0] >= last, "{law:?} {sample}");
                last = back[0];
            }
        }
    }

    #[test]
    fn lengths_that_differ_stop_at_the_shorter() {
        assert_eq!(Codec::Pcmu.encode(&[0; 10], &mut [0; 4]), 4);
        assert_eq!(Codec::Pcma.decode(&[0; 3], &mut [0; 160]), 3);
    }

    #[test]
    fn names_and_payload_types_agree() {
        for codec in [Codec::Pcmu, Codec::Pcma] {
            assert_eq!(Codec::from_payload_type(codec.payload_type()), Some(codec));
            assert_eq!(Codec::from_name(&codec.name().to_lowercase()), Some(codec));
            let mut code = [0];
            codec.encode(&[0], &mut code);
            assert_eq!(code[0], codec.silence());
        }
        assert_eq!(Codec::from_payload_type(9), None);
        assert_eq!(Codec::from_name("G722"), None);
    }

    /// The ITU sweep of all 65,536 values, where the conformance folder is at hand.
    #[test]
    fn the_itu_sweep_agrees_for_all_linear_values() {
        let root = std::env::var_os("TRUNKLINE_CONFORMANCE").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance"),
            PathBuf::from,
        );
        let folder = root.join("vectors/g711");
        let words = |name: &str| -> Option<Vec<u16>> {
            let bytes = std::fs::read(folder.join(name)).ok()?;
            Some(bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect())
        };
        let Some(source) = words("sweep.src") else {
            println!("skipped: no ITU sweep at {} (TRUNKLINE_CONFORMANCE)", folder.display());
            return;
        };
        assert_eq!(source.len(), 65_536);
        let (ulaw, alaw) = (words("sweep-r.u").unwrap(), words("sweep-r.a").unwrap());
        let (from_ulaw, from_alaw) = (words("sweep-r.u-u").unwrap(), words("sweep-r.a-a").unwrap());
        for (at, &value) in source.iter().enumerate() {
            let sample = value.cast_signed();
            assert_eq!(u16::from(ulaw_encode(sample)), ulaw[at], "µ-law of {sample}");
            assert_eq!(u16::from(alaw_encode(sample)), alaw[at], "A-law of {sample}");
            assert_eq!(ulaw_decode(ulaw_encode(sample)).cast_unsigned(), from_ulaw[at], "{sample}");
            assert_eq!(alaw_decode(alaw_encode(sample)).cast_unsigned(), from_alaw[at], "{sample}");
        }
    }
}

//! The two files a demo leaves behind: what was heard (WAV) and what went over the wire (pcap).

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Writes two channels of 8 kHz PCM: left what the caller said, right what the caller heard.
///
/// # Errors
/// Whatever the file system says.
pub fn write_wav(path: &Path, said: &[i16], heard: &[i16]) -> io::Result<()> {
    let frames = said.len().max(heard.len());
    let bytes = u32::try_from(frames * 4).map_err(io::Error::other)?;
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(b"RIFF")?;
    file.write_all(&(36 + bytes).to_le_bytes())?;
    file.write_all(b"WAVEfmt ")?;
    file.write_all(&16_u32.to_le_bytes())?;
    for field in [1_u16, 2] {
        file.write_all(&field.to_le_bytes())?;
    }
    for field in [8_000_u32, 32_000] {
        file.write_all(&field.to_le_bytes())?;
    }
    for field in [4_u16, 16] {
        file.write_all(&field.to_le_bytes())?;
    }
    file.write_all(b"data")?;
    file.write_all(&bytes.to_le_bytes())?;
    for n in 0..frames {
        let sample = |channel: &[i16]| channel.get(n).copied().unwrap_or(0).to_le_bytes();
        file.write_all(&sample(said))?;
        file.write_all(&sample(heard))?;
    }
    file.flush()
}

/// Most packets a capture keeps: some minutes of one call.
const MAX_PACKETS: usize = 100_000;

/// One packet of a capture.
#[derive(Clone, Debug)]
struct Captured {
    at_micros: i64,
    from: SocketAddr,
    to: SocketAddr,
    payload: Vec<u8>,
}

/// A capture in the making. Clones write to the same one.
#[derive(Clone, Debug, Default)]
pub struct Capture(Arc<Mutex<Vec<Captured>>>);

impl Capture {
    /// Adds one datagram (or one stream message, shown as a datagram).
    pub fn add(&self, at_micros: i64, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        let mut packets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if packets.len() < MAX_PACKETS {
            packets.push(Captured { at_micros, from, to, payload: payload.to_vec() });
        }
    }

    /// Packets so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// True before the first packet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes a pcap with raw IP packets (link type 101), in the order of time.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut packets = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        packets.sort_by_key(|packet| packet.at_micros);
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&0xa1b2_c3d4_u32.to_le_bytes())?;
        file.write_all(&2_u16.to_le_bytes())?;
        file.write_all(&4_u16.to_le_bytes())?;
        for field in [0_u32, 0, 65_535, 101] {
            file.write_all(&field.to_le_bytes())?;
        }
        for packet in &packets {
            let datagram = ip_udp(packet);
            let length = u32::try_from(datagram.len()).map_err(io::Error::other)?;
            let seconds = u32::try_from(packet.at_micros / 1_000_000).unwrap_or(0);
            let micros = u32::try_from(packet.at_micros % 1_000_000).unwrap_or(0);
            for field in [seconds, micros, length, length] {
                file.write_all(&field.to_le_bytes())?;
            }
            file.write_all(&datagram)?;
        }
        file.flush()
    }
}

/// The packet under IP and UDP headers (RFC 791, RFC 8200, RFC 768); UDP checksum left out over
/// IPv4, zero over IPv6 (captures are not sent).
fn ip_udp(packet: &Captured) -> Vec<u8> {
    let udp_length = u16::try_from(packet.payload.len() + 8).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(packet.payload.len() + 48);
    match (packet.from.ip().to_canonical(), packet.to.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = [0_u8; 20];
            header[0] = 0x45;
            header[2..4].copy_from_slice(&udp_length.saturating_add(20).to_be_bytes());
            header[8] = 64;
            header[9] = 17;
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let checksum = internet_checksum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            bytes.extend(header);
        }
        (from, to) => {
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(udp_length.to_be_bytes());
            bytes.extend([17, 64]);
            for address in [from, to] {
                match address {
                    IpAddr::V4(v4) => bytes.extend(v4.to_ipv6_mapped().octets()),
                    IpAddr::V6(v6) => bytes.extend(v6.octets()),
                }
            }
        }
    }
    bytes.extend(packet.from.port().to_be_bytes());
    bytes.extend(packet.to.port().to_be_bytes());
    bytes.extend(udp_length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(&packet.payload);
    bytes
}

fn internet_checksum(header: &[u8; 20]) -> u16 {
    let (pairs, _) = header.as_chunks::<2>();
    let sum: u32 = pairs.iter().map(|&pair| u32::from(u16::from_be_bytes(pair))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ip_checksum_is_that_of_the_rfc_example() {
        // A well-known header whose checksum field is 0xb861.
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 0xc0, 0xa8,
            0x00, 0x01, 0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(internet_checksum(&header), 0xb861);
    }

    #[test]
    fn a_wav_file_has_its_size_in_its_header() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.wav");
        write_wav(&path, &[1, 2, 3], &[4]).expect("written");
        let bytes = std::fs::read(&path).expect("readable");
        assert_eq!(bytes.len(), 44 + 12);
        assert_eq!(bytes.get(40..44), Some(&12_u32.to_le_bytes()[..]));
    }
}

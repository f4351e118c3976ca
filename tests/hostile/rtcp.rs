//! Datagrams that are no media, at the ports of a live call: short ones, broken ones, forged BYEs.

use std::net::UdpSocket;

use gateway::demo::rtp::talk;
use media::sdp::Encryption;

use crate::common::{Audio, ECHO, Gateway, PEER, Phone, STRANGER, level, tone};

/// RTCP packet types of RFC 5761 §4, and the RTP payload types around them.
const TYPES: [u8; 36] = {
    let mut types = [0; 36];
    let mut n: u8 = 0;
    while n < 32 {
        types[n as usize] = 192 + n;
        n += 1;
    }
    types[32] = 0;
    types[33] = 101;
    types[34] = 128;
    types[35] = 255;
    types
};

/// Every length from 0 to 64 of every type, with counts and lengths that lie.
fn packets() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for length in 0..=64_u8 {
        for kind in TYPES {
            for first in [0x80, 0x81, 0xbf, 0x9f] {
                let mut packet = vec![first, kind, 0, length / 4];
                packet.resize(usize::from(length).max(4), 0xff);
                packet.truncate(length.into());
                packets.push(packet);
            }
        }
    }
    // BYE for the peer's own source, alone and behind a receiver report (RFC 3550 §6.6).
    packets.push([&[0x81, 203, 0, 1][..], b"phon"].concat());
    packets.push([&[0x80, 201, 0, 1][..], b"phon", &[0x81, 203, 0, 1], b"phon"].concat());
    // RTP headers that promise more than there is: sources, extension, padding.
    packets.push([&[0x8f, 0][..], &[0; 10]].concat());
    packets.push([&[0x90, 0][..], &[0; 10], &[0xbe, 0xde, 0xff, 0xff]].concat());
    packets.push([&[0xa0, 0][..], &[0; 10], &[0xff; 4]].concat());
    packets.push([&[0x80, 0][..], &[0; 10]].concat());
    packets.push([&[0x80, 0][..], &[0x5a; 8_990]].concat());
    packets
}

fn bombard(encryption: Encryption) {
    let mut gateway = Gateway::start();
    let phone = Phone::new(PEER, gateway.udp);
    let mut audio = Audio::new(PEER, None, encryption);
    let mut call = phone.dial(ECHO, &audio.offer).unwrap();
    let (rtp, rtcp) = (call.media(), call.media().port() + 1);
    let stranger = UdpSocket::bind((STRANGER, 0)).unwrap();
    for (n, packet) in packets().iter().enumerate() {
        for port in [rtp.port(), rtcp] {
            for socket in [&audio.socket, &stranger] {
                socket.send_to(packet, (rtp.ip(), port)).unwrap();
            }
        }
        // At a pace that the sockets' buffers can hold.
        if n % 256 == 255 {
            assert!(call.is_up(), "after {n} packets");
        }
    }
    audio.waiting();
    let plan = audio.accept(&call);
    let heard = talk(&audio.socket, plan, &tone(400.0, 1.5, 8_000.0), None).unwrap();
    let echo = level(&heard.samples, 400.0);
    assert!(echo > 2_000.0, "the call lives: {echo}, {} packets", heard.received);
    assert!(call.is_up());
    call.hang_up();
    gateway.assert_quiet();
}

#[test]
fn no_datagram_at_the_ports_of_a_plain_call_harms_it() {
    bombard(Encryption::Disable);
}

#[test]
fn no_datagram_at_the_ports_of_an_encrypted_call_harms_it() {
    bombard(Encryption::Require);
}

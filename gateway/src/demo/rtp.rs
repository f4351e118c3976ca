//! The stand-ins' media: one thread, one socket, 20 ms at a time.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use media::frame::{FRAME_SAMPLES, Frame};
use media::packet::{self, rtp};
use media::sdp::Plan;
use media::srtp::{SrtpPair, SrtpSession, TAIL_ROOM};

use super::files::Capture;
use crate::clock;

/// Time of one packet.
const TICK: Duration = Duration::from_millis(20);

/// Ticks that the phone listens on after its last word, for what is still on its way: 600 ms.
const TAIL_TICKS: usize = 30;

/// What the phone heard, and what its socket saw.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// 8 kHz PCM from the moment the phone began to talk; packets that did not come are silence.
    pub samples: Vec<i16>,
    /// RTP packets sent.
    pub sent: u64,
    /// RTP packets received and, with SRTP, authenticated.
    pub received: u64,
    /// Packets that could not be used: not RTP, or not authentic.
    pub unusable: u64,
    /// Address the media came from.
    pub source: Option<SocketAddr>,
}

/// Says `say` and listens until a little after its end.
///
/// # Errors
/// When the socket fails.
pub fn talk(
    socket: &UdpSocket,
    plan: Plan,
    say: &[i16],
    capture: Option<&Capture>,
) -> io::Result<Heard> {
    let mut talk = Talk::new(socket, plan, capture)?;
    let ticks = say.len().div_ceil(FRAME_SAMPLES) + TAIL_TICKS;
    let start = clock::now();
    for tick in 0..ticks {
        let from = tick * FRAME_SAMPLES;
        let until = (from + FRAME_SAMPLES).min(say.len());
        talk.send(tick, say.get(from..until).unwrap_or(&[]))?;
        let next = start + TICK * u32::try_from(tick + 1).unwrap_or(u32::MAX);
        talk.listen_until(next)?;
    }
    Ok(talk.heard)
}

/// Says back what is heard, packet by packet, until told to stop.
///
/// # Errors
/// When the socket fails.
pub fn echo(socket: &UdpSocket, plan: Plan, stop: &AtomicBool) -> io::Result<Heard> {
    let mut talk = Talk::new(socket, plan, None)?;
    let mut said = 0;
    let mut tick = 0;
    while !stop.load(Ordering::Relaxed) {
        talk.listen_until(clock::now() + Duration::from_millis(2))?;
        while talk.heard.samples.len() >= said + FRAME_SAMPLES {
            let mut frame = [0; FRAME_SAMPLES];
            if let Some(heard) = talk.heard.samples.get(said..said + FRAME_SAMPLES) {
                frame.copy_from_slice(heard);
            }
            talk.send(tick, &frame)?;
            said += FRAME_SAMPLES;
            tick += 1;
        }
    }
    Ok(talk.heard)
}

struct Talk<'a> {
    socket: &'a UdpSocket,
    local: SocketAddr,
    plan: Plan,
    crypto: Option<SrtpPair>,
    capture: Option<&'a Capture>,
    first_timestamp: Option<u32>,
    heard: Heard,
}

impl<'a> Talk<'a> {
    fn new(socket: &'a UdpSocket, plan: Plan, capture: Option<&'a Capture>) -> io::Result<Self> {
        let crypto = plan.srtp.as_ref().map(|k| SrtpPair::new(k.suite, &k.local, &k.remote));
        let local = socket.local_addr()?;
        Ok(Talk {
            socket,
            local,
            plan,
            crypto,
            capture,
            first_timestamp: None,
            heard: Heard::default(),
        })
    }

    fn send(&mut self, tick: usize, samples: &[i16]) -> io::Result<()> {
        let mut frame = Frame::SILENCE;
        for (to, &from) in frame.samples.iter_mut().zip(samples) {
            *to = from;
        }
        let mut buffer = [0_u8; rtp::HEADER_BYTES + FRAME_SAMPLES + TAIL_ROOM];
        let header = rtp::Header {
            payload_type: self.plan.payload_type,
            marker: tick == 0,
            // Both wrap as RTP says (RFC 3550 §5.1).
            sequence: u16::try_from((tick + 1000) % 65_536).unwrap_or(0),
            timestamp: u32::try_from(tick * FRAME_SAMPLES).unwrap_or(0),
            ssrc: 0x7068_6f6e,
        };
        rtp::write_header(&mut buffer, header).map_err(|_| io::ErrorKind::InvalidInput)?;
        if let Some(payload) = buffer.get_mut(rtp::HEADER_BYTES..) {
            self.plan.codec.encode(&frame.samples, payload);
        }
        let mut length = rtp::HEADER_BYTES + FRAME_SAMPLES;
        if let Some(crypto) = &mut self.crypto {
            length = crypto
                .protect(&mut buffer, length)
                .map_err(|error| io::Error::other(format!("{error:?}")))?;
        }
        let datagram = buffer.get(..length).unwrap_or(&[]);
        self.socket.send_to(datagram, self.plan.remote)?;
        self.note(self.local, self.plan.remote, datagram);
        self.heard.sent += 1;
        Ok(())
    }

    fn listen_until(&mut self, deadline: Instant) -> io::Result<()> {
        let mut buffer = [0_u8; 2048];
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Ok(());
            }
            self.socket.set_read_timeout(Some(left.max(Duration::from_micros(100))))?;
            match self.socket.recv_from(&mut buffer) {
                Ok((length, source)) => self.receive(&mut buffer, length, source),
                Err(error) if is_timeout(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn receive(&mut self, buffer: &mut [u8], length: usize, source: SocketAddr) {
        if let Some(datagram) = buffer.get(..length) {
            self.note(source, self.local, datagram);
            if packet::classify(datagram) != packet::Kind::Rtp {
                return;
            }
        }
        let plain = match &mut self.crypto {
            Some(crypto) => crypto.unprotect(buffer, length).ok(),
            None => Some(length),
        };
        let datagram = plain.and_then(|length| buffer.get(..length));
        let Some((datagram, view)) = datagram.and_then(|d| Some((d, rtp::view(d).ok()?))) else {
            self.heard.unusable += 1;
            return;
        };
        self.heard.received += 1;
        self.heard.source = Some(source);
        if view.header.payload_type == self.plan.payload_type {
            self.place(view.header.timestamp, view.payload(datagram));
        }
    }

    /// Puts audio where its timestamp says, so that losses and gaps stay where they were.
    fn place(&mut self, timestamp: u32, payload: &[u8]) {
        let first = *self.first_timestamp.get_or_insert(timestamp);
        let at = timestamp.wrapping_sub(first) as usize;
        // An hour of audio is more than any demo call has.
        if at > 3600 * 8000 {
            return;
        }
        let end = at + payload.len();
        if self.heard.samples.len() < end {
            self.heard.samples.resize(end, 0);
        }
        if let Some(place) = self.heard.samples.get_mut(at..end) {
            self.plan.codec.decode(payload, place);
        }
    }

    fn note(&self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        if let Some(capture) = self.capture {
            capture.add(clock::unix_micros(), from, to, datagram);
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind as K;
    matches!(error.kind(), K::WouldBlock | K::TimedOut | K::Interrupted | K::ConnectionRefused)
}

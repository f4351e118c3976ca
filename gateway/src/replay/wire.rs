//! The far side's own sockets: one for signalling, one for media.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip::{Frame, StreamFramer, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::clock;

/// The largest datagram there is.
const MAX_DATAGRAM: usize = 65_535;

/// Time between two packets of silence.
const PACKET_TIME: Duration = Duration::from_millis(20);

/// Audio bytes of such a packet.
const PACKET_BYTES: usize = 160;

/// A signalling socket of this call's own, towards the gateway.
pub(super) struct Line {
    /// Its own address.
    pub(super) local: SocketAddr,
    /// The gateway.
    pub(super) remote: SocketAddr,
    /// UDP or TCP.
    pub(super) transport: Transport,
    wire: Wire,
}

enum Wire {
    Datagrams(UdpSocket, Vec<u8>),
    Stream(TcpStream, StreamFramer),
}

impl Line {
    /// Opens it.
    pub(super) async fn open(transport: Transport, remote: SocketAddr) -> io::Result<Self> {
        let wire = match transport {
            Transport::Udp => {
                let any = SocketAddr::new(facing(remote), 0);
                let socket = UdpSocket::bind(any).await?;
                socket.connect(remote).await?;
                Wire::Datagrams(socket, vec![0; MAX_DATAGRAM])
            }
            _ => Wire::Stream(TcpStream::connect(remote).await?, StreamFramer::new()),
        };
        let local = match &wire {
            Wire::Datagrams(socket, _) => socket.local_addr()?,
            Wire::Stream(stream, _) => stream.local_addr()?,
        };
        Ok(Line { local, remote, transport, wire })
    }

    /// Sends one message.
    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.wire {
            Wire::Datagrams(socket, _) => socket.send(bytes).await.map(drop),
            Wire::Stream(stream, _) => stream.write_all(bytes).await,
        }
    }

    /// The next message; `None` when none comes until `deadline`.
    ///
    /// # Errors
    /// When the other side closed the stream or nobody listens.
    pub(super) async fn receive(&mut self, deadline: Instant) -> io::Result<Option<Bytes>> {
        let left = deadline.saturating_duration_since(clock::now());
        match tokio::time::timeout(left, self.next()).await {
            Ok(message) => message.map(Some),
            Err(_) => Ok(None),
        }
    }

    async fn next(&mut self) -> io::Result<Bytes> {
        match &mut self.wire {
            Wire::Datagrams(socket, buffer) => {
                let length = socket.recv(buffer).await?;
                Ok(Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default()))
            }
            Wire::Stream(stream, framer) => loop {
                match framer.next_frame().map_err(io::Error::other)? {
                    Some(Frame::Message(message)) => return Ok(message),
                    Some(Frame::Ping) => stream.write_all(b"\r\n").await?,
                    Some(Frame::Pong) => {}
                    None => {
                        let mut buffer = [0; 4096];
                        let length = stream.read(&mut buffer).await?;
                        if length == 0 {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                        framer.push(buffer.get(..length).unwrap_or_default());
                    }
                }
            },
        }
    }
}

/// The address to bind for a peer: loopback for loopback, any otherwise.
pub(super) fn facing(remote: SocketAddr) -> IpAddr {
    match remote {
        _ if remote.ip().is_loopback() => remote.ip(),
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0; 16]),
    }
}

/// Where the far side hears, and what it says once it knows to whom: silence. It ends with the value.
pub(super) struct Media {
    /// What stands in its offers.
    pub(super) local: SocketAddr,
    target: Option<oneshot::Sender<Talk>>,
    task: JoinHandle<()>,
}

impl Drop for Media {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// To whom, and in which format (RTP/AVP payload type 0 or 8).
struct Talk {
    to: SocketAddr,
    payload_type: u8,
}

impl Media {
    /// Opens the socket. It takes in whatever comes, from now on.
    pub(super) async fn open(signalling: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::new(signalling.ip(), 0)).await?;
        let local = socket.local_addr()?;
        let (target, told) = oneshot::channel();
        let task = tokio::spawn(silence(socket, told));
        Ok(Media { local, target: Some(target), task })
    }

    /// Begins to send silence as an SDP answer asks for it: only to the gateway's own address, only
    /// unencrypted G.711. Later answers change nothing.
    pub(super) fn follow(&mut self, answer: &[u8], gateway: IpAddr) {
        let Some(talk) = target(answer, gateway) else { return };
        if let Some(sender) = self.target.take() {
            let _ = sender.send(talk);
        }
    }
}

/// The first audio line's address, if it is one to send to.
fn target(answer: &[u8], gateway: IpAddr) -> Option<Talk> {
    let text = std::str::from_utf8(answer).ok()?;
    let mut audio = text.lines().find_map(|line| line.strip_prefix("m=audio "))?.split(' ');
    let port: u16 = audio.next()?.parse().ok().filter(|port| *port != 0)?;
    let payload_type = match (audio.next()?, audio.next()?) {
        ("RTP/AVP", "0") => 0,
        ("RTP/AVP", "8") => 8,
        _ => return None,
    };
    let connection = text.lines().find_map(|line| line.strip_prefix("c=IN IP"))?;
    let ip: IpAddr = connection.split(' ').nth(1)?.trim().parse().ok()?;
    (ip == gateway).then(|| Talk { to: SocketAddr::new(ip, port), payload_type })
}

/// Takes in what comes; once told, sends as well.
async fn silence(socket: UdpSocket, mut told: oneshot::Receiver<Talk>) {
    let mut buffer = [0; 2048];
    let talk = loop {
        tokio::select! {
            talk = &mut told => match talk {
                Ok(talk) => break talk,
                Err(_) => return,
            },
            _ = socket.recv_from(&mut buffer) => {}
        }
    };
    let mut tick = tokio::time::interval(PACKET_TIME);
    let mut sequence = 0_u16;
    loop {
        tokio::select! {
            _ = tick.tick() => {
                // A port that is closed again is no reason to stop: the call's signalling decides.
                let _ = socket.send_to(&packet(sequence, talk.payload_type), talk.to).await;
                sequence = sequence.wrapping_add(1);
            }
            _ = socket.recv_from(&mut buffer) => {}
        }
    }
}

/// An RTP packet of silence (RFC 3550 §5.1; G.711's codes for zero).
fn packet(sequence: u16, payload_type: u8) -> [u8; 12 + PACKET_BYTES] {
    let mut packet = [if payload_type == 8 { 0xd5 } else { 0xff }; 12 + PACKET_BYTES];
    let timestamp = u32::from(sequence) * 160;
    let (header, _) = packet.split_at_mut(12);
    let [s0, s1] = sequence.to_be_bytes();
    let [t0, t1, t2, t3] = timestamp.to_be_bytes();
    header.copy_from_slice(&[0x80, payload_type, s0, s1, t0, t1, t2, t3, b'r', b'p', b'l', b'y']);
    packet
}

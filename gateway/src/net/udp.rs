//! SIP over UDP (RFC 3261 §18.2): one socket per listening address, one task that reads it.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sip::{Flow, Transport};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::unconstrained;
use tokio::time::timeout;

use super::Inbound;
use super::address::Seen;
use crate::clock;

/// Largest datagram that is read whole: the largest UDP payload.
const MAX_DATAGRAM: usize = 65_535;

/// Receive buffer asked of the kernel, in bytes: about 3,000 INVITEs waiting.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Shortest datagram that can be a SIP message; shorter ones are keep-alives (RFC 5626 §3.5.1).
const MIN_MESSAGE: usize = 20;

/// Binds a datagram socket.
///
/// # Errors
/// Whatever the kernel says to `bind`.
pub fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A smaller buffer than asked for is no reason not to start.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    let _ = socket.set_send_buffer_size(RECEIVE_BUFFER);
    // Nor is it that refusals will only be noticed by their silence.
    let _ = hear_of_refusals(&socket, address.is_ipv6());
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Has the kernel keep what ICMP says about datagrams of ours (`ip(7)`, IP_RECVERR).
#[expect(unsafe_code, reason = "a socket option that no library offers")]
fn hear_of_refusals(socket: &Socket, v6: bool) -> io::Result<()> {
    let (level, option) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    } else {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    };
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).map_err(io::Error::other)?;
    // SAFETY: the option value is an int of the length given that lives through the call.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const on).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whom the datagrams were for that ICMP says were refused: nobody listens there, or no way leads there.
/// Takes everything the kernel has kept, and at most [`REFUSALS_PER_TURN`].
fn refused(socket: &UdpSocket, error: &io::Error) -> Vec<SocketAddr> {
    let is_refusal = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    );
    let mut to = Vec::new();
    for _ in 0..REFUSALS_PER_TURN {
        // What is quoted of the datagram is of no interest; whom it was for comes as its address.
        let mut quoted = [MaybeUninit::uninit(); 32];
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        match SockRef::from(socket).recv_from_with_flags(&mut quoted, flags) {
            Ok((_, address)) if is_refusal => to.extend(address.as_socket()),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    to.dedup();
    to
}

/// Datagrams that are read before others on the same thread have their turn: half of the queue to the shard.
const READS_PER_TURN: usize = super::INBOUND_DEPTH / 2;

/// How long a datagram waits for room in the queue: the shard empties it by 64 messages in less.
const ROOM_WAIT: Duration = Duration::from_millis(5);

/// Refusals that are taken note of before datagrams are read again.
const REFUSALS_PER_TURN: usize = 64;

/// Binds every address and keeps the sockets by the address they really have.
///
/// # Errors
/// The first address that cannot be bound, named in the message.
pub fn bind_all(addresses: &[SocketAddr]) -> io::Result<HashMap<SocketAddr, Arc<UdpSocket>>> {
    let mut sockets = HashMap::new();
    for &address in addresses {
        let socket = bind(address)
            .map_err(|error| io::Error::new(error.kind(), format!("udp {address}: {error}")))?;
        sockets.insert(socket.local_addr()?, Arc::new(socket));
    }
    Ok(sockets)
}

/// Reads datagrams until the shard is gone. A datagram that finds the queue full waits for 5 ms,
/// and the next ones in the kernel's buffer; then it is dropped and counted.
///
/// All that has come is taken out of the kernel's buffer at once: how much waits is known only of the queue.
///
/// The flow's local address is ours as the peer sees it, so that Via and Contact name what it can
/// reach.
pub async fn receive(
    socket: Arc<UdpSocket>,
    mut seen: Seen,
    inbound: mpsc::Sender<Inbound>,
    dropped: Arc<AtomicU64>,
) {
    let (mut buffer, mut reads) = (vec![0u8; MAX_DATAGRAM], 0_usize);
    loop {
        reads = (reads + 1) % READS_PER_TURN;
        if reads == 0 {
            tokio::task::yield_now().await;
        }
        let (length, remote) = match unconstrained(socket.recv_from(&mut buffer)).await {
            Ok(got) => got,
            Err(error) => {
                for remote in refused(&socket, &error) {
                    // A full queue has more urgent things in it.
                    let _ = inbound.try_send(Inbound::Refused { remote });
                }
                continue;
            }
        };
        let Some(datagram) = buffer.get(..length).filter(|bytes| bytes.len() >= MIN_MESSAGE) else {
            continue;
        };
        let local = seen.by(remote.ip());
        let flow = Flow { transport: Transport::Udp, local, remote, connection: 0 };
        let bytes = Bytes::copy_from_slice(datagram);
        match inbound.try_send(Inbound::Message { flow, bytes, at: clock::now(), place: None }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(message)) => {
                match timeout(ROOM_WAIT, inbound.send(message)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return,
                    Err(_) => {
                        dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_datagram_waits_a_moment_for_room_in_the_queue() {
        let socket = Arc::new(bind("127.0.0.1:0".parse().expect("an address")).expect("bound"));
        let address = socket.local_addr().expect("bound");
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        let text = |number: u8| vec![b'0' + number; MIN_MESSAGE];
        for message in [text(0), vec![b'x'; MIN_MESSAGE - 1], text(1), text(2), text(3)] {
            peer.send_to(&message, address).expect("sent");
        }
        let (inbound, mut queue) = mpsc::channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let seen = Seen::new(Arc::from([]), address);
        let reader = tokio::spawn(receive(socket, seen, inbound, Arc::clone(&dropped)));
        for number in 0..4 {
            let Some(Inbound::Message { bytes, .. }) = queue.recv().await else {
                panic!("{number}")
            };
            assert_eq!(bytes, text(number));
        }
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        reader.abort();
    }

    #[tokio::test]
    async fn what_finds_no_room_is_dropped_and_counted() {
        let socket = Arc::new(bind("127.0.0.1:0".parse().expect("an address")).expect("bound"));
        let address = socket.local_addr().expect("bound");
        let peer = std::net::UdpSocket::bind("127.0.0.1:0").expect("bound");
        for _ in 0..5 {
            peer.send_to(&[b'x'; MIN_MESSAGE], address).expect("sent");
        }
        let (inbound, mut queue) = mpsc::channel(1);
        let dropped = Arc::new(AtomicU64::new(0));
        let seen = Seen::new(Arc::from([]), address);
        let reader = tokio::spawn(receive(socket, seen, inbound, Arc::clone(&dropped)));
        let until_dropped = async {
            while dropped.load(Ordering::Relaxed) < 4 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), until_dropped).await.expect("four of five");
        assert!(queue.try_recv().is_ok() && queue.try_recv().is_err());
        reader.abort();
    }
}

//! The pool of media ports: even/odd socket pairs on one address, and their quarantine.
//!
//! ```text
//!            allocate                drop of the PortPair            quiet for `quarantine`
//!   free ───────────────► in use ──────────────────────► quarantine ────────────────────────► free
//!     ▲                                                       │
//!     └────── the quietest goes first when ports or descriptors are short
//! ```
//!
//! A pair that comes back stays bound and is read empty until its peer has been silent for a while:
//! the last call's media must not arrive in the next call. A pair is always in exactly one of the
//! three places, so ports cannot leak: giving a pair back *is* dropping it.
//!
//! RTP takes the even port and RTCP the next one (RFC 3550 §11).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::worker::sys;

/// How a [`PortPool`] is made.
#[derive(Clone, Debug)]
pub struct PoolOptions {
    /// The local address to bind; it must be specific enough for answers to leave from it.
    pub bind: IpAddr,
    /// The UDP ports that may be used. Only whole even/odd pairs in it count.
    pub ports: RangeInclusive<u16>,
    /// How long a returned pair must hear nothing before it is used again.
    pub quarantine: Duration,
    /// Random bits for the order in which ports are handed out.
    pub seed: u64,
    /// How many pairs may have a third socket that is connected to their peer, for as long as they are
    /// in use: what the program can spare of its descriptors.
    pub connected: usize,
}

impl PoolOptions {
    /// How long a pair stays quiet before it is used again, unless asked otherwise.
    pub const QUARANTINE: Duration = Duration::from_secs(5);
}

/// Why no pair could be handed out.
#[derive(Debug)]
pub enum PortError {
    /// Every pair of the range is in use, or bound by another program.
    Exhausted,
    /// The system refused for a reason that another port would not cure.
    System(io::Error),
}

impl std::fmt::Display for PortError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exhausted => f.write_str("no free media port in the range"),
            Self::System(error) => write!(f, "cannot bind a media port: {error}"),
        }
    }
}

impl std::error::Error for PortError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Exhausted => None,
            Self::System(error) => Some(error),
        }
    }
}

/// How many pairs are where.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PortCounts {
    /// Pairs in the range.
    pub capacity: usize,
    /// Pairs ready to be handed out.
    pub free: usize,
    /// Pairs handed out and not yet dropped.
    pub in_use: usize,
    /// Returned pairs whose peers may still be sending.
    pub quarantined: usize,
    /// Datagrams that arrived in quarantine and were thrown away, since the start.
    pub strays: u64,
}

/// The pool. Clones are the same pool.
#[derive(Clone)]
pub struct PortPool {
    inner: Arc<Inner>,
}

impl PortPool {
    /// A pool over the even/odd pairs of `options.ports`. Nothing is bound yet.
    #[must_use]
    pub fn new(options: PoolOptions) -> Self {
        let (low, high) = (*options.ports.start(), *options.ports.end());
        let free: Vec<u16> =
            (low..high).filter(|port| *port != 0 && port.is_multiple_of(2)).collect();
        let state = State { capacity: free.len(), free, seed: options.seed, ..State::default() };
        let state = Mutex::new(state);
        Self { inner: Arc::new(Inner { options, connected: AtomicUsize::new(0), state }) }
    }

    /// Binds a pair at a random free place of the range.
    ///
    /// When nothing is free that others have not bound, or no descriptor, the pair that has been quiet longest
    /// leaves quarantine early.
    ///
    /// # Errors
    /// [`PortError::Exhausted`] when every pair is in use, [`PortError::System`] when the system
    /// refuses the address or has no more descriptors.
    pub fn allocate(&self, now: Instant) -> Result<PortPair, PortError> {
        let mut state = self.inner.lock();
        if state.free.is_empty() || state.is_unswept(now) {
            state.sweep(now, self.inner.options.quarantine);
        }
        // Each free port is tried at most once: others on this host may have bound some.
        let mut tried = 0;
        loop {
            let Some(port) = state.draw(tried) else {
                if state.release_quietest() {
                    continue;
                }
                return Err(PortError::Exhausted);
            };
            let bind = || bind_pair(self.inner.options.bind, port);
            match state.with_descriptors(bind) {
                Ok((rtp, rtcp)) => {
                    state.in_use += 1;
                    return Ok(PortPair {
                        rtp: Some(rtp),
                        rtcp: Some(rtcp),
                        connected: None,
                        port,
                        pool: Arc::clone(&self.inner),
                    });
                }
                Err(error) => {
                    state.free.push(port);
                    tried += 1;
                    if error.kind() != io::ErrorKind::AddrInUse {
                        return Err(PortError::System(error));
                    }
                }
            }
        }
    }

    /// Reads quarantined sockets empty and frees those that have been quiet long enough.
    ///
    /// Bounded work: at most 64 datagrams of each socket. Call it a few times a
    /// second; the [`crate::worker::Workers`] do.
    pub fn sweep(&self, now: Instant) {
        self.inner.lock().sweep(now, self.inner.options.quarantine);
    }

    /// How many pairs are where.
    #[must_use]
    pub fn counts(&self) -> PortCounts {
        let state = self.inner.lock();
        PortCounts {
            capacity: state.capacity,
            free: state.free.len(),
            in_use: state.in_use,
            quarantined: state.quarantine.len(),
            strays: state.strays,
        }
    }

    /// Both are handles of one pool.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// The address the pairs are bound to.
    #[must_use]
    pub fn bind(&self) -> IpAddr {
        self.inner.options.bind
    }
}

/// Two bound, non-blocking sockets. Dropping the pair gives it back to its pool, into quarantine.
///
/// On the RTP port there may be a third one that is connected to the peer.
pub struct PortPair {
    // Only `drop` empties these two.
    rtp: Option<UdpSocket>,
    rtcp: Option<UdpSocket>,
    connected: Option<UdpSocket>,
    port: u16,
    pool: Arc<Inner>,
}

impl PortPair {
    /// The socket on the even port.
    #[must_use]
    pub fn rtp(&self) -> &UdpSocket {
        self.rtp.as_ref().expect("the sockets stay until the pair is dropped")
    }

    /// The socket on the odd port above it.
    #[must_use]
    pub fn rtcp(&self) -> &UdpSocket {
        self.rtcp.as_ref().expect("the sockets stay until the pair is dropped")
    }

    /// The even port: what goes into the SDP.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket that is connected to the peer, if there is one.
    #[must_use]
    pub(crate) fn connected(&self) -> Option<&UdpSocket> {
        self.connected.as_ref()
    }

    /// Puts a socket beside the one on the even port that is connected to `peer`, or connects the one that
    /// is there to this `peer` instead. The kernel looks up its way to the peer once and not with every
    /// packet; what the peer sends comes there, and what everybody else sends still comes to the other
    /// socket. So whoever reads one has to read both, and to look who sent it: there may be something
    /// in it from before.
    ///
    /// # Errors
    /// What the system says; the socket that was there still is, and reads as before. `QuotaExceeded` when
    /// [`PoolOptions::connected`] are, `Unsupported` when the pool is bound to every address: where a
    /// packet leaves from is then for the kernel to find, and may change.
    pub(crate) fn connect(&mut self, peer: SocketAddr) -> io::Result<()> {
        if let Some(socket) = &self.connected {
            return socket.connect(peer);
        }
        if self.pool.options.bind.is_unspecified() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let all = &self.pool.connected;
        if all.fetch_add(1, Ordering::Relaxed) >= self.pool.options.connected {
            all.fetch_sub(1, Ordering::Relaxed);
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let connect = |socket: Socket| socket.connect(&peer.into()).map(|()| socket.into());
        let made = share(self.rtp()).and_then(connect).inspect_err(|_| {
            all.fetch_sub(1, Ordering::Relaxed);
        });
        self.connected = Some(made?);
        Ok(())
    }

    /// Closes the connected socket; what lies in it is lost.
    pub(crate) fn disconnect(&mut self) {
        if self.connected.take().is_some() {
            self.pool.connected.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The pool this pair goes back to.
    pub(crate) fn pool(&self) -> PortPool {
        PortPool { inner: Arc::clone(&self.pool) }
    }
}

impl Drop for PortPair {
    fn drop(&mut self) {
        // Before another call can have the port.
        self.disconnect();
        let mut state = self.pool.lock();
        state.in_use -= 1;
        match (self.rtp.take(), self.rtcp.take()) {
            (Some(rtp), Some(rtcp)) => {
                let quiet_since = None;
                state.quarantine.push(Retired { port: self.port, rtp, rtcp, quiet_since });
            }
            _ => state.free.push(self.port),
        }
    }
}

struct Inner {
    options: PoolOptions,
    /// Pairs that have a connected socket.
    connected: AtomicUsize,
    state: Mutex<State>,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct State {
    capacity: usize,
    free: Vec<u16>,
    in_use: usize,
    quarantine: Vec<Retired>,
    swept: Option<Instant>,
    strays: u64,
    seed: u64,
}

impl State {
    /// Takes a random free port, leaving out the last `tried` ones: those were put back just now.
    fn draw(&mut self, tried: usize) -> Option<u16> {
        let fresh = self.free.len().checked_sub(tried).filter(|fresh| *fresh > 0)?;
        let pick = usize::try_from(next_random(&mut self.seed) % fresh as u64).unwrap_or(0);
        // The hole is filled with the last fresh port, so that the tried ones stay at the end.
        self.free.swap(pick, fresh - 1);
        Some(self.free.remove(fresh - 1))
    }

    /// Nobody has swept for so long that an allocation should.
    fn is_unswept(&self, now: Instant) -> bool {
        self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY)
    }

    fn sweep(&mut self, now: Instant, quarantine: Duration) {
        self.swept = Some(now);
        let State { quarantine: retired, strays, free, .. } = self;
        retired.retain_mut(|pair| {
            let heard = pair.drain();
            *strays += heard;
            if heard > 0 {
                pair.quiet_since = Some(now);
            }
            let since = *pair.quiet_since.get_or_insert(now);
            let quiet = now.saturating_duration_since(since) >= quarantine;
            if quiet {
                free.push(pair.port);
            }
            !quiet
        });
    }

    /// Does what takes descriptors, once more if there are none and quarantine could give some.
    fn with_descriptors<T>(&mut self, mut make: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let made = make();
        let is_short = |error: &io::Error| error.raw_os_error() == Some(libc::EMFILE);
        if made.as_ref().is_err_and(is_short) && self.release_quietest() { make() } else { made }
    }

    /// The pair that has been quiet longest leaves quarantine; false when there is none.
    fn release_quietest(&mut self) -> bool {
        // `None` is a pair no sweep has seen yet: the least quiet of all.
        let quietest = (self.quarantine.iter().enumerate())
            .min_by_key(|(_, pair)| (pair.quiet_since.is_none(), pair.quiet_since))
            .map(|(index, _)| index);
        let pair = quietest.map(|index| self.quarantine.remove(index));
        // In front: the ones at the end count as tried.
        pair.map(|pair| self.free.insert(0, pair.port)).is_some()
    }
}

struct Retired {
    port: u16,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    /// When the last stray was read, or when the first sweep saw the pair.
    quiet_since: Option<Instant>,
}

impl Retired {
    fn drain(&self) -> u64 {
        drain(&self.rtp) + drain(&self.rtcp)
    }
}

fn drain(socket: &UdpSocket) -> u64 {
    // One byte is enough: the rest of a datagram is thrown away by the kernel.
    let mut scrap = [0; 1];
    (0..STRAYS_PER_SWEEP).take_while(|_| socket.recv_from(&mut scrap).is_ok()).count() as u64
}

fn bind_pair(address: IpAddr, port: u16) -> io::Result<(UdpSocket, UdpSocket)> {
    Ok((bind(SocketAddr::new(address, port))?, bind(SocketAddr::new(address, port + 1))?))
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(address)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A second socket on the port of `first`. SO_REUSEPORT is set for no longer than this takes: meanwhile
/// another program of the same user that asks for it, too, could have the port, and else nobody ever.
fn share(first: &UdpSocket) -> io::Result<Socket> {
    let address = first.local_addr()?;
    let (socket, first) = (open(address)?, SockRef::from(first));
    first.set_reuse_port(true)?;
    let bound = socket.set_reuse_port(true).and_then(|()| socket.bind(&address.into()));
    first.set_reuse_port(false)?;
    socket.set_reuse_port(false)?;
    bound.map(|()| socket)
}

/// A media socket that will be bound to `address`.
fn open(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    // Best effort: a system that caps the buffers or ignores the mark still carries the call.
    let _ = socket.set_recv_buffer_size(BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(BUFFER_BYTES);
    let _ = match address {
        SocketAddr::V4(_) => socket.set_tos_v4(EXPEDITED_FORWARDING),
        SocketAddr::V6(_) => socket.set_tclass_v6(EXPEDITED_FORWARDING),
    };
    let _ = sys::stamp_arrivals(socket.as_fd());
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// SplitMix64: spreads the order of ports. Nothing relies on its being hard to guess.
fn next_random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A sweep costs two system calls for each quarantined pair: often enough, not with every call.
const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// Datagrams read from one quarantined socket in one sweep; the kernel drops what does not fit.
const STRAYS_PER_SWEEP: u64 = 64;

/// Kernel buffer of a media socket, each way: more than a second of G.711 with its overhead, and
/// little enough that a flood cannot hide seconds of stale audio in it.
const BUFFER_BYTES: usize = 64 * 1024;

/// DSCP 46, expedited forwarding, as it stands in the TOS octet (RFC 3246, RFC 4594 §4.1).
const EXPEDITED_FORWARDING: u32 = 46 << 2;

/// Where the ports of this process's tests begin: 200 of them, apart from those of other processes
/// and from the ports the system hands out by itself.
#[cfg(test)]
pub(crate) fn first_test_port() -> u16 {
    11_000 + u16::try_from(std::process::id() % 100).unwrap() * 200
}

#[cfg(test)]
mod tests;

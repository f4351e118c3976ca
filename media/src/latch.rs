//! Where the peer really is: source learning that cannot be stolen (RFC 4961 symmetric RTP).
//!
//! A description says where the peer wants its media, NAT makes that untrue, and whoever sends
//! first to an open port would like to be believed. The rules, strictest evidence first:
//!
//! | packet comes from | plain RTP | SRTP |
//! |---|---|---|
//! | the signalled address and port | heard, locks at once | only once authenticated |
//! | the signalled address, other port | heard; locks after [`PROBATION`] in sequence | same |
//! | the signalling source address | heard; locks after [`PROBATION`] in sequence | same |
//! | anywhere else | dropped (see [`Policy::learn_anywhere`]) | authenticated: locks |
//!
//! ```text
//!             proof of the source                     packet of another source
//!   Learning ─────────────────────▶ Locked(source) ──────────────────────────▶ dropped, counted
//!      ▲                               │
//!      └────── relatch: another address was signalled ──┘
//! ```
//!
//! After the lock every other source is dropped, with two exceptions that are better evidence
//! than the lock itself: the exactly signalled source after a lock that was only learned, and, for
//! SRTP, a newer authenticated packet from a new place (the peer moved).
//!
//! Until the lock at most [`UNPROVEN_PACKETS`] go to an address nobody has vouched for, so the
//! latch is neither a tap (CVE-2025-53399) nor a cannon. RTCP never moves anything here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Packets in sequence that a learned source has to show before it locks.
pub const PROBATION: u8 = 4;
/// The same for a source that nothing in the signalling points at: half a second of audio.
pub const PROBATION_ANYWHERE: u8 = 25;
/// Packets sent to an address that neither signalling nor a received packet vouches for.
pub const UNPROVEN_PACKETS: u8 = 4;
/// A gap in the sequence that probation forgives (lost packets).
const PROBATION_GAP: u16 = 3;
/// Dropped packets within one second that are an intrusion and no stray.
pub const INTRUSION_PACKETS: u32 = 10;
/// For how long a source has to stay locked before a socket is connected to it.
pub const STEADY: Duration = Duration::from_secs(1);
/// After how long that is tried again when it could not be done.
pub const CONNECT_AGAIN: Duration = Duration::from_secs(30);
/// Over how long dropped packets are counted together.
const INTRUSION_WINDOW: Duration = Duration::from_secs(1);
/// An intrusion that goes on is told again after this time.
const INTRUSION_AGAIN: Duration = Duration::from_secs(10);

/// What the signalling side knows about the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Where the peer's signalling comes from: its address behind NAT, most often.
    pub signalling: IpAddr,
    /// Media is SRTP: only authenticated packets are evidence.
    pub secure: bool,
    /// The trunk lists the signalled media address: it needs no proof before we send.
    pub listed: bool,
    /// Believe a source that neither description nor signalling names, after a long probation,
    /// uncontested, and only when the signalled address is private while the signalling is not.
    /// For peers behind NAT whose SIP comes through a proxy. A stranger who sends alone for half
    /// a second is believed too, so this is off unless the trunk asks for it.
    pub learn_anywhere: bool,
}

/// One RTP packet as the latch sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Source of the datagram.
    pub source: SocketAddr,
    /// SSRC of the header.
    pub ssrc: u32,
    /// Sequence number of the header.
    pub sequence: u16,
    /// SRTP: the tag was good and the packet no replay. Plain RTP: false.
    pub authenticated: bool,
}

/// What to do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Hear it.
    Yes,
    /// Hear it; with it the source is locked, and media goes there from now on.
    Locked,
    /// Drop it.
    No,
    /// Drop it, and tell: this is more than a stray packet.
    Intrusion,
}

impl Admit {
    /// The packet may be heard.
    #[must_use]
    pub const fn is_heard(self) -> bool {
        matches!(self, Self::Yes | Self::Locked)
    }
}

/// Counts since the start of the leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets heard.
    pub heard: u64,
    /// Packets dropped because of their source.
    pub strangers: u64,
    /// Locks, the first one included.
    pub locks: u32,
    /// Intrusions told.
    pub intrusions: u32,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The peer's address.
    pub address: SocketAddr,
    /// There is a socket connected to it; see [`Latch::to_connect`].
    pub connected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Learning,
    Locked(Lock),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lock {
    source: SocketAddr,
    /// SRTP: the SSRC and newest sequence number seen from there.
    ssrc: u32,
    newest: u16,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    source: SocketAddr,
    ssrc: u32,
    newest: u16,
    count: u8,
}

/// How much the source of a packet agrees with the signalling, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Evidence {
    Exact,
    Near,
    Stranger,
}

/// Who may be heard on one leg, and where its media goes.
///
/// What is needed of it once the source is known comes first.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Latch {
    state: State,
    counters: Counters,
    /// There is a socket connected to the locked source.
    connected: bool,
    policy: Policy,
    signalled: SocketAddr,
    candidate: Option<Candidate>,
    stranger: Option<Candidate>,
    /// Still heard after a relatch, until the new address shows: media in flight.
    previous: Option<SocketAddr>,
    unproven_left: u8,
    window: Option<(Instant, u32)>,
    told: Option<Instant>,
    /// When a socket may be connected to the locked source.
    connect_at: Option<Instant>,
}

impl Latch {
    /// A latch for the address the peer signalled. Unspecified: the description does not tell.
    #[must_use]
    pub fn new(signalled: SocketAddr, policy: Policy) -> Self {
        Self {
            signalled: canonical(signalled),
            policy: Policy { signalling: policy.signalling.to_canonical(), ..policy },
            state: State::Learning,
            candidate: None,
            stranger: None,
            previous: None,
            unproven_left: UNPROVEN_PACKETS,
            window: None,
            told: None,
            counters: Counters::default(),
            connected: false,
            connect_at: None,
        }
    }

    /// Judges one RTP packet. For SRTP call it after the tag was checked.
    #[inline]
    pub fn admit(&mut self, arrival: Arrival, now: Instant) -> Admit {
        // Nearly every packet: nothing to be learned from it.
        if !self.policy.secure && self.locked() == Some(arrival.source) {
            self.counters.heard += 1;
            return Admit::Yes;
        }
        self.judge(arrival, now)
    }

    fn judge(&mut self, arrival: Arrival, now: Instant) -> Admit {
        let arrival = Arrival { source: canonical(arrival.source), ..arrival };
        let verdict = match (self.state, self.policy.secure) {
            (_, true) if !arrival.authenticated => Admit::No,
            (State::Learning, true) => self.lock(arrival),
            (State::Learning, false) => self.learn(arrival),
            (State::Locked(lock), true) => self.follow(lock, arrival),
            (State::Locked(lock), false) => self.hold(lock, arrival),
        };
        if verdict == Admit::Locked {
            self.connect_at = Some(now + STEADY);
        }
        if verdict.is_heard() {
            self.counters.heard += 1;
            return verdict;
        }
        self.counters.strangers += 1;
        self.watch(now)
    }

    /// Whether an RTCP packet may be read. It never moves the latch: plain RTCP must come from
    /// the host that media comes from; SRTCP must be authenticated.
    #[must_use]
    pub fn admit_rtcp(&self, source: SocketAddr, authenticated: bool) -> bool {
        let source = canonical(source);
        match (self.state, self.policy.secure) {
            (_, true) => authenticated,
            (State::Locked(lock), false) => lock.source.ip() == source.ip(),
            (State::Learning, false) => self.signalled.ip() == source.ip(),
        }
    }

    /// Where the next RTP packet goes, if it may go anywhere. Before the source is proven each
    /// call spends one of [`UNPROVEN_PACKETS`], unless the signalling vouches for the address.
    pub fn send_to(&mut self) -> Option<Target> {
        let address = match self.state {
            State::Locked(lock) => lock.source,
            State::Learning if self.signalled.ip().is_unspecified() => return None,
            State::Learning if self.is_vouched() => self.signalled,
            State::Learning => {
                self.unproven_left = self.unproven_left.checked_sub(1)?;
                self.signalled
            }
        };
        Some(Target { address, connected: self.connected })
    }

    /// The locked source, when it is worth a socket of its own and has none: it has been locked for
    /// [`STEADY`]. Whatever unlocks it ends the use of that socket.
    #[must_use]
    pub fn to_connect(&self, now: Instant) -> Option<SocketAddr> {
        let is_time = !self.connected && self.connect_at.is_some_and(|at| now >= at);
        self.locked().filter(|_| is_time)
    }

    /// There is a socket connected to what [`Latch::to_connect`] has just said.
    pub fn connected(&mut self) {
        self.connected = true;
    }

    /// No socket could be connected; it may be tried again [`CONNECT_AGAIN`] after `now`.
    pub fn not_connected(&mut self, now: Instant) {
        self.connect_at = Some(now + CONNECT_AGAIN);
    }

    /// Where RTCP goes: nowhere before the RTP address is proven or vouched for. A learned
    /// address has its RTCP one port up, as NATs that keep pairs have it (RFC 4787 §4.2.2).
    #[must_use]
    pub fn send_rtcp_to(&self, signalled: SocketAddr, mux: bool) -> Option<SocketAddr> {
        let rtp = match self.state {
            State::Locked(lock) => lock.source,
            State::Learning if self.signalled.ip().is_unspecified() => return None,
            State::Learning if self.is_vouched() => self.signalled,
            State::Learning => return None,
        };
        if mux {
            return Some(rtp);
        }
        if rtp == self.signalled && canonical(signalled).ip() == rtp.ip() {
            return Some(canonical(signalled));
        }
        rtp.port().checked_add(1).map(|port| SocketAddr::new(rtp.ip(), port))
    }

    /// A new plan came. Another address starts learning anew; until it shows, what was heard
    /// stays heard, but nothing more is sent there. The same address changes nothing. True when
    /// learning starts anew.
    pub fn relatch(&mut self, signalled: SocketAddr, secure: bool) -> bool {
        let signalled = canonical(signalled);
        if signalled == self.signalled && secure == self.policy.secure {
            return false;
        }
        let previous = self.locked();
        let counters = self.counters;
        let told = self.told;
        // The trunk vouched for the first address only: another one has to prove itself.
        let listed = self.policy.listed && signalled.ip() == self.signalled.ip();
        *self = Self::new(signalled, Policy { secure, listed, ..self.policy });
        // What was heard in the clear proves nothing about a stream that is now encrypted.
        self.previous = previous.filter(|_| !secure);
        self.counters = counters;
        self.told = told;
        true
    }

    /// The locked source.
    #[must_use]
    pub fn locked(&self) -> Option<SocketAddr> {
        match self.state {
            State::Locked(lock) => Some(lock.source),
            State::Learning => None,
        }
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn learn(&mut self, arrival: Arrival) -> Admit {
        match self.evidence(arrival.source) {
            Evidence::Exact => self.lock(arrival),
            Evidence::Near => {
                if prove(&mut self.candidate, arrival) >= PROBATION {
                    return self.lock(arrival);
                }
                Admit::Yes
            }
            Evidence::Stranger if self.previous == Some(arrival.source) => Admit::Yes,
            Evidence::Stranger => {
                if !self.may_learn_anywhere() || self.candidate.is_some() {
                    return Admit::No;
                }
                if prove(&mut self.stranger, arrival) >= PROBATION_ANYWHERE {
                    return self.lock(arrival);
                }
                Admit::No
            }
        }
    }

    /// Plain RTP after the lock: only the locked source, or the signalled one after a guess.
    fn hold(&mut self, lock: Lock, arrival: Arrival) -> Admit {
        if arrival.source == lock.source {
            return Admit::Yes;
        }
        let better = self.evidence(arrival.source) == Evidence::Exact && !self.is_masked();
        if better { self.lock(arrival) } else { Admit::No }
    }

    /// SRTP after the lock: every authenticated packet is the peer's, the newest one moves us.
    fn follow(&mut self, lock: Lock, arrival: Arrival) -> Admit {
        let ahead = arrival.sequence.wrapping_sub(lock.newest);
        let newer = arrival.ssrc != lock.ssrc || (1..0x8000).contains(&ahead);
        if !newer {
            return Admit::Yes;
        }
        if arrival.source == lock.source {
            self.state = State::Locked(Lock {
                source: lock.source,
                ssrc: arrival.ssrc,
                newest: arrival.sequence,
            });
            return Admit::Yes;
        }
        self.lock(arrival)
    }

    fn lock(&mut self, arrival: Arrival) -> Admit {
        let Arrival { source, ssrc, sequence, .. } = arrival;
        self.state = State::Locked(Lock { source, ssrc, newest: sequence });
        self.candidate = None;
        self.stranger = None;
        self.previous = None;
        self.connected = false;
        self.counters.locks += 1;
        Admit::Locked
    }

    fn evidence(&self, source: SocketAddr) -> Evidence {
        let ip = source.ip();
        let near = ip == self.policy.signalling || (ip == self.signalled.ip() && !self.is_masked());
        match (source == self.signalled, near) {
            (true, _) => Evidence::Exact,
            (false, true) => Evidence::Near,
            (false, false) => Evidence::Stranger,
        }
    }

    /// The signalled address is private while the signalling came from a public one: it means a
    /// host in the peer's network, not the host that has this address in ours.
    fn is_masked(&self) -> bool {
        let signalled = self.signalled.ip();
        signalled != self.policy.signalling
            && is_private(signalled)
            && !is_private(self.policy.signalling)
    }

    fn is_vouched(&self) -> bool {
        self.policy.listed || self.signalled.ip() == self.policy.signalling
    }

    fn may_learn_anywhere(&self) -> bool {
        self.policy.learn_anywhere && (self.is_masked() || self.signalled.ip().is_unspecified())
    }

    /// Counts a dropped packet; tells when they are many.
    fn watch(&mut self, now: Instant) -> Admit {
        let (since, count) = match self.window {
            Some((since, count)) if now.saturating_duration_since(since) < INTRUSION_WINDOW => {
                (since, count + 1)
            }
            _ => (now, 1),
        };
        self.window = Some((since, count));
        let quiet =
            self.told.is_some_and(|told| now.saturating_duration_since(told) < INTRUSION_AGAIN);
        if count < INTRUSION_PACKETS || quiet {
            return Admit::No;
        }
        self.told = Some(now);
        self.counters.intrusions += 1;
        Admit::Intrusion
    }
}

/// Counts packets of one source and SSRC in sequence; anything else starts the count again, so
/// two who compete never get there.
fn prove(candidate: &mut Option<Candidate>, arrival: Arrival) -> u8 {
    let Arrival { source, ssrc, sequence, .. } = arrival;
    let count = match candidate {
        Some(known) if known.source == source && known.ssrc == ssrc => {
            let ahead = sequence.wrapping_sub(known.newest);
            if (1..=PROBATION_GAP).contains(&ahead) { known.count.saturating_add(1) } else { 1 }
        }
        _ => 1,
    };
    *candidate = Some(Candidate { source, ssrc, newest: sequence, count });
    count
}

/// IPv4 in IPv6 clothes is IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Not routable on the public Internet: RFC 1918, 6598, 3927, 4193, loopback, unspecified.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(ip) => {
            let shared = Ipv4Addr::new(100, 64, 0, 0).to_bits();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_unspecified()
                || ip.to_bits() & 0xFFC0_0000 == shared
        }
        IpAddr::V6(ip) => {
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDP: &str = "192.0.2.10:4000";
    const SIP: &str = "192.0.2.1";

    fn goes_to(latch: &mut Latch) -> Option<SocketAddr> {
        latch.send_to().map(|target| target.address)
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn policy() -> Policy {
        let signalling = SIP.parse().unwrap();
        Policy { signalling, secure: false, listed: false, learn_anywhere: false }
    }

    fn secure() -> Policy {
        Policy { secure: true, ..policy() }
    }

    fn plain(source: &str, sequence: u16) -> Arrival {
        Arrival { source: address(source), ssrc: 1, sequence, authenticated: false }
    }

    fn authentic(source: &str, sequence: u16) -> Arrival {
        Arrival { authenticated: true, ..plain(source, sequence) }
    }

    /// How many of `count` packets in sequence are heard.
    fn heard(latch: &mut Latch, source: &str, count: u16) -> usize {
        let now = crate::clock::now();
        (0..count).filter(|n| latch.admit(plain(source, *n), now).is_heard()).count()
    }

    #[test]
    fn the_signalled_source_locks_at_once() {
        let mut latch = Latch::new(address(SDP), policy());
        let now = crate::clock::now();
        assert_eq!(latch.admit(plain(SDP, 5), now), Admit::Locked);
        assert_eq!(latch.admit(plain(SDP, 6), now), Admit::Yes);
        assert_eq!(goes_to(&mut latch), Some(address(SDP)));
        assert_eq!(heard(&mut latch, "198.51.100.9:4000", 100), 0);
        assert_eq!(heard(&mut latch, "192.0.2.10:4001", 100), 0);
        assert_eq!(latch.locked(), Some(address(SDP)));
    }

    #[test]
    fn who_is_believed_when() {
        // signalled address, source, packets until the lock (None: never), of plain RTP
        for (signalled, source, lock_after) in [
            (SDP, SDP, Some(1)),
            (SDP, "192.0.2.10:9999", Some(4)),
            (SDP, "192.0.2.1:9999", Some(4)),
            (SDP, "198.51.100.9:4000", None),
            ("10.0.0.5:4000", "192.0.2.1:40000", Some(4)),
            ("10.0.0.5:4000", "10.0.0.5:4000", Some(1)),
            ("10.0.0.5:4000", "10.0.0.5:4001", None),
            ("10.0.0.5:4000", "10.0.0.6:4000", None),
            ("10.0.0.5:4000", "198.51.100.9:4000", None),
            ("0.0.0.0:4000", "192.0.2.1:4000", Some(4)),
            ("0.0.0.0:4000", "198.51.100.9:4000", None),
            ("192.0.2.10:4000", "[::ffff:192.0.2.10]:4000", Some(1)),
        ] {
            let mut latch = Latch::new(address(signalled), policy());
            let now = crate::clock::now();
            let lock = (0..200).find(|n| latch.admit(plain(source, *n), now) == Admit::Locked);
            assert_eq!(lock.map(|n| n + 1), lock_after, "{signalled} from {source}");
            let expected = lock_after.map(|_| canonical(address(source)));
            assert_eq!(latch.locked(), expected, "{signalled} from {source}");
        }
    }

    #[test]
    fn on_a_private_network_the_other_port_of_the_peer_is_near() {
        let policy = Policy { signalling: "10.0.0.1".parse().unwrap(), ..policy() };
        let mut latch = Latch::new(address("10.0.0.5:4000"), policy);
        heard(&mut latch, "10.0.0.5:4444", 4);
        assert_eq!(latch.locked(), Some(address("10.0.0.5:4444")));
    }

    #[test]
    fn before_the_lock_at_most_four_packets_go_to_an_unproven_address() {
        let mut latch = Latch::new(address(SDP), policy());
        assert_eq!((0..50).filter(|_| latch.send_to().is_some()).count(), 4);
        heard(&mut latch, SDP, 1);
        assert_eq!((0..50).filter(|_| latch.send_to().is_some()).count(), 50);
    }

    #[test]
    fn an_address_that_is_vouched_for_is_sent_to_at_once() {
        let listed = Policy { listed: true, ..policy() };
        for (signalled, policy) in [("192.0.2.1:4000", policy()), (SDP, listed)] {
            let mut latch = Latch::new(address(signalled), policy);
            assert_eq!((0..50).filter(|_| latch.send_to().is_some()).count(), 50);
        }
        let mut latch = Latch::new(address("0.0.0.0:4000"), listed);
        assert_eq!(goes_to(&mut latch), None, "nowhere is nowhere");
    }

    #[test]
    fn a_spray_gets_nothing_whatever_the_peer_does() {
        let now = crate::clock::now();
        let thief = "198.51.100.66:7000";
        // (a) from its address, (b) behind NAT, (c) silent
        for (signalled, peer) in
            [(SDP, Some(SDP)), ("10.0.0.5:4000", Some("192.0.2.1:31000")), (SDP, None)]
        {
            let mut latch = Latch::new(address(signalled), policy());
            let (mut to_thief, mut from_thief) = (0, 0);
            for n in 0..2_000_u16 {
                from_thief += u32::from(latch.admit(plain(thief, n), now).is_heard());
                if let Some(peer) = peer.filter(|_| n > 500 && n % 20 == 0) {
                    latch.admit(plain(peer, n / 20), now);
                }
                to_thief += u32::from(goes_to(&mut latch) == Some(address(thief)));
            }
            assert_eq!((to_thief, from_thief), (0, 0), "{signalled}");
            assert_eq!(latch.locked(), peer.map(address));
            // (d) after the peer moved
            latch.relatch(address("192.0.2.10:5000"), false);
            for n in 0..500 {
                assert!(!latch.admit(plain(thief, n), now).is_heard());
                assert_ne!(goes_to(&mut latch), Some(address(thief)));
            }
        }
    }

    #[test]
    fn probation_wants_one_source_one_ssrc_and_a_sequence() {
        let now = crate::clock::now();
        let near = |port: u16, ssrc: u32, sequence: u16| Arrival {
            source: SocketAddr::new(SIP.parse().unwrap(), port),
            ssrc,
            sequence,
            authenticated: false,
        };
        for (name, packets, locks) in [
            ("in sequence", [(1, 1, 1), (1, 1, 2), (1, 1, 3), (1, 1, 4)], true),
            ("over the wrap", [(1, 1, 65_534), (1, 1, 65_535), (1, 1, 0), (1, 1, 1)], true),
            ("with loss", [(1, 1, 1), (1, 1, 4), (1, 1, 6), (1, 1, 7)], true),
            ("two ports", [(1, 1, 1), (2, 1, 2), (1, 1, 3), (2, 1, 4)], false),
            ("two SSRCs", [(1, 1, 1), (1, 2, 2), (1, 1, 3), (1, 2, 4)], false),
            ("random sequence", [(1, 1, 100), (1, 1, 9), (1, 1, 60_000), (1, 1, 33)], false),
            ("the same packet", [(1, 1, 1), (1, 1, 1), (1, 1, 1), (1, 1, 1)], false),
        ] {
            let mut latch = Latch::new(address(SDP), policy());
            for (port, ssrc, sequence) in packets {
                latch.admit(near(port, ssrc, sequence), now);
            }
            assert_eq!(latch.locked().is_some(), locks, "{name}");
        }
    }

    #[test]
    fn the_signalled_source_takes_over_from_a_guess_but_nobody_else_does() {
        let mut latch = Latch::new(address(SDP), policy());
        heard(&mut latch, "192.0.2.1:9999", 4);
        assert_eq!(heard(&mut latch, "192.0.2.1:9998", 100), 0);
        assert_eq!(latch.locked(), Some(address("192.0.2.1:9999")));
        assert_eq!(heard(&mut latch, SDP, 2), 2);
        assert_eq!(latch.locked(), Some(address(SDP)));
        assert_eq!(heard(&mut latch, "192.0.2.1:9999", 100), 0);
    }

    #[test]
    fn learning_from_anywhere_is_asked_for_slow_and_uncontested() {
        let anywhere = Policy { learn_anywhere: true, ..policy() };
        let stranger = "198.51.100.9:4000";
        let mut latch = Latch::new(address("10.0.0.5:4000"), anywhere);
        assert_eq!(heard(&mut latch, stranger, 24), 0);
        assert_eq!(latch.locked(), None);
        heard(&mut latch, stranger, 25);
        assert_eq!(latch.locked(), Some(address(stranger)));

        let mut latch = Latch::new(address(SDP), anywhere);
        heard(&mut latch, stranger, 500);
        assert_eq!(latch.locked(), None, "a public address is where the peer is");

        let mut latch = Latch::new(address("10.0.0.5:4000"), anywhere);
        let now = crate::clock::now();
        for n in 0..500 {
            latch.admit(plain(stranger, n), now);
            latch.admit(plain("203.0.113.9:4000", n), now);
        }
        assert_eq!(latch.locked(), None, "two who want it: neither gets it");
    }

    #[test]
    fn with_srtp_only_authenticated_packets_count_from_anywhere() {
        let mut latch = Latch::new(address(SDP), secure());
        let now = crate::clock::now();
        for source in [SDP, "192.0.2.1:9", "198.51.100.9:4000"] {
            assert!(!latch.admit(plain(source, 1), now).is_heard(), "{source}");
        }
        assert_eq!(latch.locked(), None);
        assert_eq!(latch.admit(authentic("198.51.100.9:4000", 10), now), Admit::Locked);
        assert_eq!(latch.admit(authentic("198.51.100.9:4000", 11), now), Admit::Yes);
        assert_eq!(latch.admit(authentic("198.51.100.7:4444", 12), now), Admit::Locked);
        assert_eq!(latch.locked(), Some(address("198.51.100.7:4444")));
        assert_eq!(latch.admit(authentic("198.51.100.9:4000", 9), now), Admit::Yes, "reordered");
        assert_eq!(latch.locked(), Some(address("198.51.100.7:4444")), "old packets move nothing");
        assert!(!latch.admit(plain(SDP, 13), now).is_heard());
    }

    #[test]
    fn an_unchanged_address_keeps_the_lock_and_a_new_one_learns_again() {
        let mut latch = Latch::new(address(SDP), policy());
        heard(&mut latch, "192.0.2.1:9999", 4);
        latch.relatch(address(SDP), false);
        assert_eq!(latch.locked(), Some(address("192.0.2.1:9999")));

        latch.relatch(address("192.0.2.20:5000"), false);
        assert_eq!(latch.locked(), None);
        let now = crate::clock::now();
        assert_eq!(goes_to(&mut latch), Some(address("192.0.2.20:5000")));
        assert!(latch.admit(plain("192.0.2.1:9999", 5), now).is_heard(), "still in flight");
        assert_eq!(latch.admit(plain("192.0.2.20:5000", 1), now), Admit::Locked);
        assert!(!latch.admit(plain("192.0.2.1:9999", 6), now).is_heard());
        assert_eq!(latch.counters().locks, 2);
    }

    #[test]
    fn a_source_that_stays_locked_is_worth_a_socket_until_it_is_left() {
        let (mut latch, now) = (Latch::new(address(SDP), secure()), crate::clock::now());
        let (first, second) = ("198.51.100.9:4000", "198.51.100.7:4444");
        assert_eq!(latch.to_connect(now + STEADY), None, "nothing is locked");
        latch.admit(authentic(first, 1), now);
        assert_eq!(latch.to_connect(now + STEADY / 2), None);
        assert_eq!(latch.to_connect(now + STEADY), Some(address(first)));
        latch.not_connected(now + STEADY);
        assert_eq!(latch.to_connect(now + STEADY * 2), None, "not at once again");
        assert_eq!(latch.to_connect(now + STEADY + CONNECT_AGAIN), Some(address(first)));
        latch.connected();
        assert_eq!(latch.to_connect(now + CONNECT_AGAIN * 3), None);
        latch.admit(authentic(first, 2), now);
        let target = |address, connected| Some(Target { address, connected });
        assert_eq!(latch.send_to(), target(address(first), true));

        latch.admit(authentic(second, 3), now);
        assert_eq!(latch.send_to(), target(address(second), false));
        assert_eq!(latch.to_connect(now + STEADY), Some(address(second)));
        latch.connected();
        assert!(!latch.relatch(address(SDP), true));
        assert_eq!(latch.send_to(), target(address(second), true), "the same plan again");
        assert!(latch.relatch(address("192.0.2.20:5000"), true));
        assert_eq!(latch.to_connect(now + CONNECT_AGAIN * 3), None);
        latch.admit(authentic(second, 4), now);
        assert_eq!(latch.send_to(), target(address(second), false));
    }

    #[test]
    fn a_switch_to_srtp_forgets_what_was_believed_in_the_clear() {
        let mut latch = Latch::new(address(SDP), policy());
        heard(&mut latch, SDP, 3);
        latch.relatch(address(SDP), true);
        assert_eq!(latch.locked(), None);
        assert_eq!(heard(&mut latch, SDP, 10), 0);
    }

    #[test]
    fn many_dropped_packets_are_told_once_and_again_after_a_while() {
        let mut latch = Latch::new(address(SDP), policy());
        let start = crate::clock::now();
        latch.admit(plain(SDP, 0), start);
        let mut told = Vec::new();
        for n in 0..1_250_u64 {
            let verdict =
                latch.admit(plain("198.51.100.9:1", 0), start + Duration::from_millis(n * 20));
            if verdict == Admit::Intrusion {
                told.push(n);
            }
        }
        assert_eq!(told, [9, 509, 1_009]);
        assert_eq!(latch.counters().strangers, 1_250);
        assert_eq!(latch.counters().intrusions, 3);
        // A stray packet now and then is no intrusion.
        let mut latch = Latch::new(address(SDP), policy());
        let slow = (0..100_u64).map(|n| start + Duration::from_millis(n * 150));
        let verdicts = slow.map(|now| latch.admit(plain("198.51.100.9:1", 0), now));
        assert!(verdicts.into_iter().all(|verdict| verdict == Admit::No));
    }

    #[test]
    fn rtcp_is_read_from_the_medias_host_and_moves_nothing() {
        let mut latch = Latch::new(address(SDP), policy());
        assert!(latch.admit_rtcp(address("192.0.2.10:4001"), false));
        assert!(!latch.admit_rtcp(address("198.51.100.9:4001"), false));
        heard(&mut latch, "192.0.2.1:9999", 4);
        assert!(latch.admit_rtcp(address("192.0.2.1:10000"), false));
        assert!(!latch.admit_rtcp(address("192.0.2.10:4001"), false));
        let latch = Latch::new(address(SDP), secure());
        assert!(!latch.admit_rtcp(address(SDP), false));
        assert!(latch.admit_rtcp(address("198.51.100.9:9"), true));
    }

    #[test]
    fn rtcp_goes_where_media_is_proven_to_be() {
        let rtcp = address("192.0.2.10:4500");
        let mut latch = Latch::new(address(SDP), policy());
        assert_eq!(latch.send_rtcp_to(rtcp, false), None);
        heard(&mut latch, SDP, 1);
        assert_eq!(latch.send_rtcp_to(rtcp, false), Some(rtcp));
        assert_eq!(latch.send_rtcp_to(rtcp, true), Some(address(SDP)));
        let elsewhere = address("198.51.100.9:4500");
        let above = Some(address("192.0.2.10:4001"));
        assert_eq!(latch.send_rtcp_to(elsewhere, false), above, "another host is not proven");
        let mut latch = Latch::new(address("10.0.0.5:4000"), policy());
        heard(&mut latch, "192.0.2.1:31000", 4);
        assert_eq!(latch.send_rtcp_to(rtcp, false), Some(address("192.0.2.1:31001")));
    }
}

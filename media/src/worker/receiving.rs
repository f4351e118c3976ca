//! What comes to the sockets: read, given to its session, and carried over to the other leg.
//!
//! A datagram that was late is told from one that came just now by the kernel's stamp, which costs as
//! much as a third of the reading. While the worker looks often enough to know, it does not ask.

use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::network::{Network, mute, parse_token};
use super::slab::SlabKey;
use super::sys::{self, Ready, Received};
use super::thread::{BYPASS_TICKS, CLEANING_SHARE, Tenant, Worker};
use crate::clock;
use crate::session::{Channel, DATAGRAM_BYTES, Datagram, Session};
use crate::srtp::TAIL_ROOM;

impl Worker {
    /// Whether what is ready may have waited for long enough to matter. Not if the worker looked for
    /// it a moment ago and found all there was; sometimes it asks all the same, as a sample of how
    /// long datagrams wait.
    pub(super) fn may_be_late(&mut self, ready: &Ready, now: Instant) -> bool {
        let idle = now.saturating_duration_since(std::mem::replace(&mut self.woken, now));
        let was_full = std::mem::replace(&mut self.was_full, ready.is_full());
        self.wakes = self.wakes.wrapping_add(1);
        idle > MOMENT || was_full || ready.is_full() || self.wakes.is_multiple_of(SAMPLED)
    }

    /// Reads what is there at one socket, as much as it may at a turn.
    pub(super) fn receive(&mut self, token: u64) {
        let (key, inlet) = parse_token(token);
        for _ in 0..DATAGRAMS_PER_TURN {
            let Some(tenant) = self.tenants.get_mut(key).filter(|tenant| !tenant.faulty) else {
                return;
            };
            if tenant.received >= DATAGRAMS_PER_TICK {
                // Once: muting a socket lets it tell a pending error again.
                if !std::mem::replace(&mut tenant.muted, true) {
                    mute(&self.poller, &tenant.ports, key);
                }
                return;
            }
            let Some(socket) = inlet.of(&tenant.ports) else { return };
            let room = DATAGRAM_BYTES - TAIL_ROOM;
            let space = self.buffer.get_mut(..room).unwrap_or_default();
            let receive = if self.stamped { sys::receive_stamped } else { sys::receive };
            match receive(socket.as_fd(), space) {
                Ok(Some(received)) => {
                    tenant.received += 1;
                    let now = if self.stamped { clock::now() } else { self.moment };
                    let waited = received
                        .arrived
                        .map(|arrived| self.anchor.since_1970(now).saturating_sub(arrived));
                    self.handle(key, inlet.channel(), &received, (now, waited));
                    if waited.is_none_or(|waited| waited < FRESH) {
                        return;
                    }
                }
                Ok(None) => return,
                // An ICMP error of something sent earlier; the next call reads on.
                Err(_) => tenant.received += 1,
            }
        }
    }

    /// As soon as it is known what is ready: has the processor fetch where the first sessions are.
    pub(super) fn fetch_first(&self, ready: &Ready) {
        let keys = ready.tokens().take(2).map(|token| parse_token(token).0);
        keys.for_each(|key| self.tenants.fetch(key));
    }

    /// While the kernel is asked for the datagram of one place, the processor fetches what that one
    /// and the next ones will be needed for: where the sessions are two places ahead, the session
    /// itself one place ahead, and now the one that it is carried over to.
    pub(super) fn fetch_ahead(&self, ready: &Ready, place: usize) {
        let key = |place| ready.token(place).map(|token| parse_token(token).0);
        key(place + 2).into_iter().for_each(|later| self.tenants.fetch(later));
        if let Some(next) = key(place + 1).and_then(|key| self.tenants.get(key)) {
            sys::prefetch(&*next.session, Session::HOT_BYTES);
            next.partner.into_iter().for_each(|partner| self.tenants.fetch(partner));
        }
        let Some(tenant) = key(place).and_then(|key| self.tenants.get(key)) else { return };
        if place == 0 {
            sys::prefetch(&*tenant.session, Session::HOT_BYTES);
        }
        if let Some(partner) = tenant.partner.and_then(|partner| self.tenants.get(partner)) {
            sys::prefetch(&*partner.session, Session::HOT_BYTES);
        }
    }

    /// Handles what was `received` just `now` or, as near as matters, a moment ago, after it had `waited`
    /// in the kernel if that is known.
    fn handle(
        &mut self,
        key: SlabKey,
        channel: Channel,
        &Received { len, truncated, from, .. }: &Received,
        (now, waited): (Instant, Option<Duration>),
    ) {
        let Some(Tenant { session, ports, partner, .. }) = self.tenants.get_mut(key) else {
            return;
        };
        let (partner, cleaned_since) = (*partner, session.is_cleaned().then(clock::now));
        // What does not fit the buffer is no packet of ours; as an empty one it is counted malformed.
        let len = if truncated { 0 } else { len };
        let buffer = self.buffer.as_mut_slice();
        let datagram = Datagram { channel, from, waited: waited.unwrap_or_default(), buffer, len };
        let since = waited.and_then(|waited| now.checked_sub(waited));
        let mut network = Network { ports, shared: &self.shared, events: &self.events, since };
        let done = catch_unwind(AssertUnwindSafe(|| {
            let crossing = session.handle_datagram(now, datagram, &mut network);
            (crossing, session.take_fed_agent())
        }));
        self.shared.counters.received.add(1);
        let Ok((crossing, fed)) = done else { return self.retire(key) };
        self.fed_agents |= fed;
        if let Some(begun) = cleaned_since {
            self.share_cleaning_time(key, begun);
        }
        match (crossing, partner, waited) {
            (Some(crossing), Some(partner), _) => self.carry(partner, &crossing, since),
            (None, _, Some(waited)) => self.shared.counters.count_residence(waited),
            _ => {}
        }
    }

    /// What is relayed or heard by an agent is cleaned as it comes, for no longer between two ticks
    /// than within one.
    fn share_cleaning_time(&mut self, key: SlabKey, begun: Instant) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        self.cleaning += clock::now().saturating_duration_since(begun);
        if self.cleaning > CLEANING_SHARE {
            tenant.bypass_left = BYPASS_TICKS;
            tenant.session.bypass_cleaning(true);
        }
    }
}

/// A datagram that lay in the kernel for less than this is nearly always the only one: asking for another would
/// cost as much as reading one, and if there is one, the poller says so.
const FRESH: Duration = Duration::from_millis(2);

/// What arrived since the worker looked for it so long ago is on time.
const MOMENT: Duration = Duration::from_millis(1);

/// One in so many wake-ups asks how long datagrams have waited though they cannot be late.
const SAMPLED: u32 = 32;

/// Read from one socket before the next one has its turn.
const DATAGRAMS_PER_TURN: usize = 8;

/// Read from one leg in 20 ms: 25,600 a second, fifty times what its budget lets through.
const DATAGRAMS_PER_TICK: u16 = 512;

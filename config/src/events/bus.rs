//! The bus: the last events of each organisation, for the streams that read them.
//!
//! ```text
//!             first                     end
//!               v                        v
//!   forgotten … | 41 | 42 | 43 | 44 | 45 |        one ring per organisation with a stream
//!                      ^              ^
//!                  a slow reader   a quick one
//! ```
//!
//! A stream has no queue of its own: it has a position in its organisation's ring, and one whose
//! position has been forgotten was too slow. An organisation's ring is made with its first stream and
//! stays for a while after its last, so that a stream that broke off can be taken up again.
//!
//! Invariants: nothing of one organisation is in the ring of another, and positions are counted for
//! each ring alone, so that they do not tell how much goes on elsewhere; what is kept is bounded in
//! events, in bytes and in rings.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Told;
use crate::clock::{Clock, Timestamp};
use crate::ids::OrganisationId;
use crate::limits::{EVENT_RESUME_SECONDS, EVENT_RING_BYTES, EVENT_RING_EVENTS, EVENT_RINGS};

/// How often a bus that closes looks whether its streams are gone, in milliseconds.
const CLOSING_MS: u64 = 10;

/// Where in the streams of an organisation an event stands; prints as the `id` of a server-sent event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamId {
    ring: u64,
    position: u64,
}

/// The text is no position that a stream has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is no position in a stream")]
pub struct NotAStreamId;

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.ring, self.position)
    }
}

impl FromStr for StreamId {
    type Err = NotAStreamId;

    fn from_str(text: &str) -> Result<Self, NotAStreamId> {
        let (ring, position) = text.split_once('-').ok_or(NotAStreamId)?;
        if ring.len() != 16 || position.starts_with('+') {
            return Err(NotAStreamId);
        }
        let ring = u64::from_str_radix(ring, 16).map_err(|_| NotAStreamId)?;
        Ok(Self { ring, position: position.parse().map_err(|_| NotAStreamId)? })
    }
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what happens from now on.
    Now,
    /// After this event.
    After(StreamId),
    /// After an event that nobody knows: with all that is kept.
    Unknown,
}

/// How many streams may be open at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Of one organisation.
    pub per_organisation: usize,
    /// Of all.
    pub total: usize,
}

/// As many streams are open as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many streams are open")]
pub struct TooManyStreams;

/// What a stream reads next.
#[derive(Debug, Clone)]
pub enum Next {
    /// An event.
    Event(StreamId, Arc<Told>),
    /// Events were lost here: they were forgotten before the stream was taken up again, or dropped
    /// because the store was gone for too long.
    Lost(StreamId),
    /// The stream was too slow: what it should read next has been forgotten.
    Behind,
    /// The node stops; everything before has been read.
    Closed,
}

#[derive(Debug, Clone)]
enum Item {
    Event(Arc<Told>),
    Lost,
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Event(told) => told.bytes(),
            Self::Lost => 0,
        }
    }
}

/// The last events of one organisation.
struct Ring {
    id: u64,
    /// The position of the first item that is kept.
    first: u64,
    items: VecDeque<Item>,
    bytes: usize,
    readers: usize,
    /// When the last reader went; meaningless while there are some.
    idle_since: Timestamp,
    /// Tells readers the position after the last item.
    bell: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    rings: HashMap<OrganisationId, Ring>,
    /// Streams that are open, until their connections are really gone.
    open: HashMap<OrganisationId, usize>,
    is_closed: bool,
}

/// The bus. Clones are the same one.
#[derive(Clone)]
pub struct EventBus {
    state: Arc<Mutex<State>>,
    clock: Clock,
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EventBus")
    }
}

impl EventBus {
    /// A bus without streams; the clock says how long a ring has been without one.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { state: Arc::default(), clock }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows an event to the streams of its organisation, now and for a while.
    pub fn publish(&self, told: &Arc<Told>) {
        let (organisation, now) = (told.event().organization_id, self.clock.now());
        let mut state = self.state();
        let Some(ring) = state.rings.get_mut(&organisation) else { return };
        if ring.is_stale(now) {
            state.rings.remove(&organisation);
        } else {
            ring.push(Item::Event(Arc::clone(told)));
        }
    }

    /// Says to every stream that events were lost: nobody knows whose.
    pub fn publish_loss(&self) {
        for ring in self.state().rings.values_mut() {
            ring.push(Item::Lost);
        }
    }

    /// Opens a stream. The place it takes is given back when the [`Place`] is dropped, which belongs
    /// to the connection.
    ///
    /// # Errors
    /// [`TooManyStreams`].
    pub fn subscribe(
        &self,
        organisation: OrganisationId,
        start: Start,
        limits: StreamLimits,
    ) -> Result<(Subscription, Place), TooManyStreams> {
        let now = self.clock.now();
        let mut state = self.state();
        let total: usize = state.open.values().sum();
        let own = state.open.get(&organisation).copied().unwrap_or(0);
        if state.is_closed || total >= limits.total || own >= limits.per_organisation {
            return Err(TooManyStreams);
        }
        state.make_room(organisation, now);
        let ring = state.rings.entry(organisation).or_insert_with(|| Ring::new(now));
        ring.readers += 1;
        let (next, is_lost) = ring.begin(start);
        let subscription = Subscription {
            bus: self.clone(),
            organisation,
            ring: ring.id,
            next,
            is_lost,
            bell: ring.bell.subscribe(),
        };
        *state.open.entry(organisation).or_default() += 1;
        Ok((subscription, Place { bus: self.clone(), organisation }))
    }

    /// Ends every stream once it has read what is there, and takes no more. Waits until they are gone,
    /// as long as `patience` allows.
    pub async fn close(&self, patience: Duration) {
        {
            let mut state = self.state();
            state.is_closed = true;
            for ring in state.rings.values() {
                ring.bell.send_modify(|_| ());
            }
        }
        let gone = async {
            while self.open_streams() > 0 {
                tokio::time::sleep(Duration::from_millis(CLOSING_MS)).await;
            }
        };
        let _ = tokio::time::timeout(patience, gone).await; // the rest ends with the program
    }

    /// How many streams are open.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.state().open.values().sum()
    }
}

impl State {
    /// Forgets rings that nobody comes back to, and one more where there would be too many.
    fn make_room(&mut self, organisation: OrganisationId, now: Timestamp) {
        self.rings.retain(|_, ring| !ring.is_stale(now));
        if self.rings.contains_key(&organisation) || self.rings.len() < EVENT_RINGS.value_usize() {
            return;
        }
        let idle = self.rings.iter().filter(|(_, ring)| ring.readers == 0);
        let longest = idle.min_by_key(|(_, ring)| ring.idle_since).map(|(id, _)| *id);
        if let Some(longest) = longest {
            self.rings.remove(&longest);
        }
    }
}

impl Ring {
    fn new(now: Timestamp) -> Self {
        // Only has to be another one than those before; a collision costs an unnoticed gap.
        let id = getrandom::u64().unwrap_or_else(|_| now.micros().unsigned_abs());
        let (items, bell) = (VecDeque::new(), watch::Sender::new(1));
        Self { id, first: 1, items, bytes: 0, readers: 0, idle_since: now, bell }
    }

    fn is_stale(&self, now: Timestamp) -> bool {
        let kept_us = i64::from(EVENT_RESUME_SECONDS.value_u32()) * 1_000_000;
        self.readers == 0 && now.micros() - self.idle_since.micros() > kept_us
    }

    /// The position after the last item.
    fn end(&self) -> u64 {
        self.first + self.items.len() as u64
    }

    /// Where a stream begins, and whether it has lost something.
    fn begin(&self, start: Start) -> (u64, bool) {
        match start {
            Start::Now => (self.end(), false),
            Start::After(id)
                if id.ring == self.id && (self.first - 1..self.end()).contains(&id.position) =>
            {
                (id.position + 1, false)
            }
            Start::After(_) | Start::Unknown => (self.first, true),
        }
    }

    fn push(&mut self, item: Item) {
        self.bytes += item.bytes();
        self.items.push_back(item);
        let (events, bytes) = (EVENT_RING_EVENTS.value_usize(), EVENT_RING_BYTES.value_usize());
        while self.items.len() > events || (self.bytes > bytes && self.items.len() > 1) {
            let Some(oldest) = self.items.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.first += 1;
        }
        self.bell.send_replace(self.end());
    }

    fn item(&self, position: u64) -> Option<&Item> {
        let at = position.checked_sub(self.first)?;
        self.items.get(usize::try_from(at).ok()?)
    }
}

/// One stream's reading end.
#[derive(Debug)]
pub struct Subscription {
    bus: EventBus,
    organisation: OrganisationId,
    ring: u64,
    next: u64,
    is_lost: bool,
    bell: watch::Receiver<u64>,
}

impl Subscription {
    /// The position before the next event: what resumes the stream here.
    #[must_use]
    pub const fn position(&self) -> StreamId {
        StreamId { ring: self.ring, position: self.next - 1 }
    }

    /// The next thing to read, as soon as there is one. Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Next {
        loop {
            self.bell.mark_unchanged();
            if let Some(next) = self.take() {
                return next;
            }
            if self.bell.changed().await.is_err() {
                return Next::Closed;
            }
        }
    }

    fn take(&mut self) -> Option<Next> {
        if std::mem::take(&mut self.is_lost) {
            return Some(Next::Lost(self.position()));
        }
        let state = self.bus.state();
        let ring = state.rings.get(&self.organisation).filter(|ring| ring.id == self.ring);
        let Some(ring) = ring else { return Some(Next::Behind) }; // a ring that is read is not dropped
        if self.next < ring.first {
            return Some(Next::Behind);
        }
        match ring.item(self.next).cloned() {
            Some(item) => {
                let at = StreamId { ring: self.ring, position: self.next };
                self.next += 1;
                Some(match item {
                    Item::Event(told) => Next::Event(at, told),
                    Item::Lost => Next::Lost(at),
                })
            }
            None => state.is_closed.then_some(Next::Closed),
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let now = self.bus.clock.now();
        let mut state = self.bus.state();
        if let Some(ring) = state.rings.get_mut(&self.organisation) {
            ring.readers = ring.readers.saturating_sub(1);
            ring.idle_since = now;
        }
    }
}

/// The place of an open stream among those that may be open.
#[derive(Debug)]
pub struct Place {
    bus: EventBus,
    organisation: OrganisationId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.bus.state();
        if let Some(open) = state.open.get_mut(&self.organisation) {
            *open -= 1;
            if *open == 0 {
                state.open.remove(&self.organisation);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use serde_json::json;

    use super::*;
    use crate::model::CallEvent;

    const LIMITS: StreamLimits = StreamLimits { per_organisation: 2, total: 3 };
    const START: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

    /// A bus whose clock stands still, and what moves it on.
    fn bus() -> (EventBus, impl Fn(i64)) {
        let seconds = Arc::new(AtomicI64::new(0));
        let read = Arc::clone(&seconds);
        let clock = Clock::from_fn(move || {
            let us = read.load(Ordering::Relaxed) * 1_000_000;
            Timestamp::from_micros(START.micros() + us)
        });
        (EventBus::new(clock), move |by| {
            seconds.fetch_add(by, Ordering::Relaxed);
        })
    }

    fn told(organisation: OrganisationId, sequence: u32) -> Arc<Told> {
        let event = CallEvent { sequence, ..CallEvent::test(organisation, START) };
        Arc::new(Told::new(event).unwrap())
    }

    /// What the stream reads without waiting: numbers, and words for the rest.
    async fn read(subscription: &mut Subscription) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let next = tokio::select! { biased;
                next = subscription.next() => next,
                () = std::future::ready(()) => return all,
            };
            let ends = matches!(next, Next::Behind | Next::Closed);
            match next {
                Next::Event(_, told) => all.push(told.event().sequence.to_string()),
                Next::Lost(_) => all.push("lost".to_owned()),
                Next::Behind => all.push("behind".to_owned()),
                Next::Closed => all.push("closed".to_owned()),
            }
            if ends {
                return all;
            }
        }
    }

    #[tokio::test]
    async fn a_stream_reads_what_happens_from_now_on_and_nothing_of_others() {
        let (bus, own, other) = (bus().0, OrganisationId::random(), OrganisationId::random());
        bus.publish(&told(own, 1));
        let (mut stream, _place) = bus.subscribe(own, Start::Now, LIMITS).unwrap();
        let (mut foreign, _theirs) = bus.subscribe(other, Start::Now, LIMITS).unwrap();
        bus.publish(&told(own, 2));
        bus.publish(&told(own, 3));
        assert_eq!(read(&mut stream).await, ["2", "3"]);
        assert!(read(&mut foreign).await.is_empty());
    }

    #[tokio::test]
    async fn a_stream_that_broke_off_is_taken_up_where_it_was() {
        let ((bus, pass), own) = (bus(), OrganisationId::random());
        let (mut stream, _place) = bus.subscribe(own, Start::Now, LIMITS).unwrap();
        let beginning = stream.position();
        bus.publish(&told(own, 1));
        let Next::Event(at, _) = stream.next().await else { panic!() };
        drop(stream);
        pass(1);
        bus.publish(&told(own, 2));
        for (start, expected) in [
            (Start::After(at), vec!["2"]),
            (Start::After(beginning), vec!["1", "2"]),
            (Start::Unknown, vec!["lost", "1", "2"]),
            (Start::After(StreamId { ring: at.ring, position: 99 }), vec!["lost", "1", "2"]),
            (Start::After(StreamId { ring: at.ring ^ 1, position: 1 }), vec!["lost", "1", "2"]),
        ] {
            let (mut again, _place) = bus.subscribe(own, start, LIMITS).unwrap();
            assert_eq!(read(&mut again).await, expected, "{start:?}");
        }
    }

    #[tokio::test]
    async fn a_ring_that_nobody_comes_back_to_is_forgotten() {
        let ((bus, pass), own) = (bus(), OrganisationId::random());
        let (stream, place) = bus.subscribe(own, Start::Now, LIMITS).unwrap();
        let at = stream.position();
        drop((stream, place));
        pass(299);
        bus.publish(&told(own, 1));
        assert_eq!(bus.state().rings[&own].items.len(), 1);
        pass(2);
        bus.publish(&told(own, 2));
        assert!(bus.state().rings.is_empty());
        let (mut late, _place) = bus.subscribe(own, Start::After(at), LIMITS).unwrap();
        assert_eq!(read(&mut late).await, ["lost"]);
    }

    #[tokio::test]
    async fn a_slow_stream_is_told_that_it_is_behind_and_the_ring_stays_bounded() {
        let (bus, own) = (bus().0, OrganisationId::random());
        let (mut slow, _place) = bus.subscribe(own, Start::Now, LIMITS).unwrap();
        for number in 0..EVENT_RING_EVENTS.value_u32() + 1 {
            bus.publish(&told(own, number));
        }
        {
            let state = bus.state();
            let ring = &state.rings[&own];
            assert!(ring.bytes <= EVENT_RING_BYTES.value_usize());
            assert_eq!(ring.bytes, ring.items.iter().map(Item::bytes).sum::<usize>());
        }
        assert_eq!(read(&mut slow).await, ["behind"]);
    }

    #[tokio::test]
    async fn large_events_make_way_for_one_another_but_never_for_nothing() {
        let (bus, own) = (bus().0, OrganisationId::random());
        let (mut stream, _place) = bus.subscribe(own, Start::Now, LIMITS).unwrap();
        let metadata = json!({ "x": "x".repeat(EVENT_RING_BYTES.value_usize()) });
        let large = CallEvent {
            sequence: 7,
            custom_metadata: Some(metadata),
            ..CallEvent::test(own, START)
        };
        bus.publish(&Arc::new(Told::new(large).unwrap()));
        assert_eq!(read(&mut stream).await, ["7"]);
        bus.publish(&told(own, 8));
        assert_eq!(bus.state().rings[&own].items.len(), 1);
        assert_eq!(read(&mut stream).await, ["8"]);
    }

    #[tokio::test]
    async fn places_are_counted_for_each_organisation_and_for_all() {
        let bus = bus().0;
        let (one, two) = (OrganisationId::random(), OrganisationId::random());
        let open = |organisation| bus.subscribe(organisation, Start::Now, LIMITS);
        let first = open(one).unwrap();
        let _second = open(one).unwrap();
        assert_eq!(open(one).unwrap_err(), TooManyStreams);
        let _third = open(two).unwrap();
        assert_eq!(open(two).unwrap_err(), TooManyStreams, "three in all");
        drop(first.0);
        assert_eq!(open(one).unwrap_err(), TooManyStreams, "its connection is still there");
        drop(first.1);
        open(one).unwrap();
    }

    #[tokio::test]
    async fn a_loss_is_told_to_everybody() {
        let bus = bus().0;
        let organisation = OrganisationId::random();
        let (mut stream, _place) = bus.subscribe(organisation, Start::Now, LIMITS).unwrap();
        bus.publish_loss();
        bus.publish(&told(organisation, 1));
        assert_eq!(read(&mut stream).await, ["lost", "1"]);
    }

    #[tokio::test]
    async fn a_bus_that_closes_lets_streams_read_to_the_end() {
        let (bus, own) = (bus().0, OrganisationId::random());
        let (mut stream, place) = bus.subscribe(own, Start::Now, LIMITS).unwrap();
        let waiting = tokio::spawn(async move {
            let first = stream.next().await;
            (first, read(&mut stream).await, place)
        });
        tokio::task::yield_now().await;
        bus.publish(&told(own, 1));
        bus.publish(&told(own, 2));
        bus.close(Duration::ZERO).await;
        let (first, rest, place) = waiting.await.unwrap();
        assert!(matches!(first, Next::Event(_, told) if told.event().sequence == 1));
        assert_eq!(rest, ["2", "closed"]);
        assert!(bus.subscribe(own, Start::Now, LIMITS).is_err());
        drop(place);
        bus.close(Duration::from_secs(60)).await; // returns at once: nobody is left
    }

    #[test]
    fn a_position_reads_as_it_prints() {
        let id = StreamId { ring: 0xabc, position: 42 };
        assert_eq!(id.to_string(), "0000000000000abc-42");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in
            ["", "-", "abc-42", "0000000000000abc", "0000000000000abc-+1", "0000000000000abc--1"]
        {
            assert_eq!(bad.parse::<StreamId>(), Err(NotAStreamId), "{bad}");
        }
    }
}

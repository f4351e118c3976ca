//! What calls write: a bounded queue in front of the store, so that no call ever waits for a disk.
//!
//! ```text
//! calls --record()--> [ conversations | decisions ] --JournalWriter--> store
//! ```
//!
//! [`Journal::record`] never blocks. The writer takes entries in order, many at a time, and keeps
//! trying a batch while the database is locked, full or gone; a batch counts as queued until it is
//! durable. What the store refuses for a reason of its own is tried again for some seconds, others first,
//! and then dropped: the next batch must not wait for ever.
//!
//! When the queue is full, decisions go first: a new one is dropped, and an entry about a
//! conversation pushes the oldest queued one out. The end of a conversation is never lost: admitting
//! its beginning reserves a place for its end, and a beginning for which there is no such place is not
//! admitted. All that is dropped is counted.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::ids::ConversationId;
use crate::model::{Conversation, ConversationChange, ConversationClose, Decision};
use crate::store::{Store, StoreError};

/// Entries written in one transaction.
const BATCH: usize = 256;

/// Pause after a transaction, in milliseconds: the most that an entry waits for others.
const GATHER_MS: u64 = 50;

/// Pauses between attempts while the store is unavailable, in milliseconds.
const PAUSE_FIRST_MS: u64 = 20;
const PAUSE_MAX_MS: u64 = 1_000;

/// How long what the store does not take, though it is there, is tried again, in milliseconds.
const REFUSED_MS: u64 = 10_000;

/// How long one transaction may take before the store counts as frozen, in milliseconds.
const FROZEN_MS: u64 = 2_000;

/// How often an idle writer looks after the store, in milliseconds.
const IDLE_MS: u64 = 30_000;

/// Something that happened to a call.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "changes are the usual entries; a box for each costs more"
)]
pub enum Entry {
    /// A conversation began.
    ConversationOpened(Box<Conversation>),
    /// It moved on.
    ConversationChanged(ConversationChange),
    /// It ended. Only the first end counts.
    ConversationClosed(Box<ConversationClose>),
    /// An INVITE was refused.
    Decision(Box<Decision>),
}

impl Entry {
    /// The conversation that it is about; entries about the same one are written in their order.
    fn conversation(&self) -> Option<ConversationId> {
        match self {
            Self::ConversationOpened(row) => Some(row.id),
            Self::ConversationChanged(change) => Some(change.id),
            Self::ConversationClosed(close) => Some(close.id),
            Self::Decision(_) => None,
        }
    }

    /// What kind of entry it is and its id, for the log: the rest is whose call it was.
    fn label(&self) -> (&'static str, String) {
        match self {
            Self::ConversationOpened(row) => ("conversation_opened", row.id.to_string()),
            Self::ConversationChanged(change) => ("conversation_changed", change.id.to_string()),
            Self::ConversationClosed(close) => ("conversation_closed", close.id.to_string()),
            Self::Decision(decision) => ("decision", decision.id.to_string()),
        }
    }
}

/// The journal's figures, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JournalStats {
    /// Entries that are not durable yet.
    pub queued: usize,
    /// Entries made durable since the start.
    pub written: u64,
    /// Decisions dropped because the queue was full.
    pub dropped_decisions: u64,
    /// Conversation entries dropped because the queue was full.
    pub dropped_conversations: u64,
    /// Entries dropped because the store would never take them.
    pub unwritable: u64,
    /// Whether the store is unavailable at the moment, or refuses something.
    pub stalled: bool,
}

impl JournalStats {
    /// Entries that nobody will read.
    const fn lost(&self) -> u64 {
        self.dropped_decisions + self.dropped_conversations + self.unwritable
    }
}

#[derive(Default)]
struct Queue {
    conversations: VecDeque<Entry>,
    decisions: VecDeque<Entry>,
    /// Conversations whose beginning was admitted, and whose end has its place reserved.
    open: HashSet<ConversationId>,
    /// Entries the writer has taken and not yet made durable.
    in_flight: usize,
    /// When it took them.
    taken_at: Option<Instant>,
    finished: bool,
    stats: JournalStats,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Rung when there is something to write, or nothing more to come.
    bell: Notify,
    capacity: usize,
}

/// Where calls record. Clones record in the same journal.
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

/// The other end: the task that writes.
pub struct JournalWriter {
    shared: Arc<Shared>,
    /// How long what is refused is tried again.
    patience_ms: u64,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("stats", &self.stats()).finish()
    }
}

impl std::fmt::Debug for JournalWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JournalWriter")
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal {
    /// A journal that holds at most `capacity` entries. A conversation takes up to three at a time, so
    /// four times the most calls is ample.
    #[must_use]
    pub fn new(capacity: usize) -> (Self, JournalWriter) {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            bell: Notify::new(),
            capacity: capacity.max(2), // a beginning and its end
        });
        let writer = JournalWriter { shared: Arc::clone(&shared), patience_ms: REFUSED_MS };
        (Self(shared), writer)
    }

    /// Records something. Never waits; what happens when the queue is full is said above.
    pub fn record(&self, entry: Entry) {
        self.0.queue().admit(entry, self.0.capacity);
        self.0.bell.notify_one();
    }

    /// Reserves a place for the end of a conversation that was begun in the store itself, as calls
    /// out are. Says whether there was one; without, the end may be lost, so nothing should begin.
    #[must_use]
    pub fn expect_end(&self, id: ConversationId) -> bool {
        self.0.queue().expect_end(id, self.0.capacity)
    }

    /// Gives the place that [`Self::expect_end`] reserved back: the call was not taken on after all.
    pub fn forget_end(&self, id: ConversationId) {
        self.0.queue().open.remove(&id);
    }

    /// Whether entries come faster than the store takes them: most places that are not promised hold entries
    /// about conversations, though nothing is wrong with the store. What begins now may go unrecorded soon.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let queue = self.0.queue();
        let free = self.0.capacity.saturating_sub(queue.open.len());
        let crowded = queue.conversations.len() > free / 4 * 3;
        let frozen = |at: Instant| at.elapsed() > Duration::from_millis(FROZEN_MS);
        crowded && !queue.stats.stalled && !queue.taken_at.is_some_and(frozen)
    }

    /// Says that nothing more will come: the writer ends when all is written.
    pub fn finish(&self) {
        self.0.queue().finished = true;
        self.0.bell.notify_one();
    }

    /// The figures of this moment.
    #[must_use]
    pub fn stats(&self) -> JournalStats {
        let queue = self.0.queue();
        JournalStats { queued: queue.len(), ..queue.stats }
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.conversations.len() + self.decisions.len() + self.in_flight
    }

    /// Places taken or promised.
    fn taken(&self) -> usize {
        self.len() + self.open.len()
    }

    /// Makes sure of `places` free places, at the cost of the oldest decisions.
    fn make_room(&mut self, places: usize, capacity: usize) -> bool {
        while self.taken() + places > capacity {
            if self.decisions.pop_front().is_none() {
                return false;
            }
            self.stats.dropped_decisions += 1;
        }
        true
    }

    fn expect_end(&mut self, id: ConversationId, capacity: usize) -> bool {
        self.open.contains(&id) || (self.make_room(1, capacity) && self.open.insert(id))
    }

    fn admit(&mut self, entry: Entry, capacity: usize) {
        match &entry {
            Entry::Decision(_) => {
                if self.taken() < capacity {
                    self.decisions.push_back(entry);
                } else {
                    self.stats.dropped_decisions += 1;
                }
            }
            Entry::ConversationOpened(conversation) => {
                let id = conversation.id;
                if self.make_room(2, capacity) {
                    self.open.insert(id);
                    self.conversations.push_back(entry);
                } else {
                    self.stats.dropped_conversations += 1;
                }
            }
            Entry::ConversationClosed(close) if self.open.remove(&close.id) => {
                self.conversations.push_back(entry); // in the place that was reserved
            }
            Entry::ConversationChanged(_) | Entry::ConversationClosed(_) => {
                if self.make_room(1, capacity) {
                    self.conversations.push_back(entry);
                } else {
                    self.stats.dropped_conversations += 1;
                }
            }
        }
    }

    /// Takes the next batch: conversations before decisions, each in order.
    fn take(&mut self, batch: &mut Vec<Entry>) {
        let conversations = self.conversations.len().min(BATCH);
        batch.extend(self.conversations.drain(..conversations));
        let decisions = self.decisions.len().min(BATCH - conversations);
        batch.extend(self.decisions.drain(..decisions));
        self.in_flight = batch.len();
        self.taken_at = Some(Instant::now());
    }
}

impl JournalWriter {
    /// First closes what a crash left open, then writes until [`Journal::finish`] and all is written.
    /// Waits for a database that is unavailable for as long as it takes.
    pub async fn run(self, store: Store) {
        self.shared.queue().taken_at = Some(Instant::now()); // its first transaction may hang too
        self.close_left_open(&store).await;
        let (mut batch, mut lost) = (Vec::with_capacity(BATCH), 0);
        loop {
            let (finished, lost_by_now) = {
                let mut queue = self.shared.queue();
                queue.take(&mut batch);
                (queue.finished, queue.stats.lost())
            };
            if std::mem::replace(&mut lost, lost_by_now) != lost_by_now {
                store.events().publish_loss();
            }
            if !batch.is_empty() {
                let more_waits = batch.len() >= BATCH;
                self.write(&store, &mut batch).await;
                // A transaction costs the same for one entry as for many: what comes meanwhile is
                // gathered for the next.
                if !finished && !more_waits {
                    tokio::time::sleep(Duration::from_millis(GATHER_MS)).await;
                }
            } else if finished {
                break;
            } else {
                self.wait(&store).await;
            }
        }
        look_after(&store).await;
    }

    async fn close_left_open(&self, store: &Store) {
        let mut pause = PAUSE_FIRST_MS;
        loop {
            match store.close_left_open().await {
                Ok(0) => break,
                Ok(closed) => {
                    tracing::warn!(closed, "conversations left open by a crash were closed");
                    break;
                }
                Err(StoreError::Unavailable(_)) => {
                    self.shared.queue().stats.stalled = true;
                    pause = rest(pause).await;
                }
                Err(error) => {
                    tracing::error!(%error, "conversations left open by a crash stay open");
                    break;
                }
            }
        }
        self.shared.queue().stats.stalled = false;
    }

    /// Waits for the bell; meanwhile looks after the store now and then.
    async fn wait(&self, store: &Store) {
        let bell = self.shared.bell.notified();
        if tokio::time::timeout(Duration::from_millis(IDLE_MS), bell).await.is_err() {
            look_after(store).await;
        }
    }

    /// Makes a batch durable, and empties it.
    async fn write(&self, store: &Store, batch: &mut Vec<Entry>) {
        let (mut pause, mut waited) = (PAUSE_FIRST_MS, 0);
        while !self.try_write(store, batch).await {
            // One of them is refused: each alone then, which tells which.
            self.write_each(store, batch).await;
            if batch.is_empty() {
                return;
            }
            let is_last = self.shared.queue().finished; // what comes after it has to be written too
            if is_last || waited >= self.patience_ms {
                return self.give_up(batch);
            }
            self.shared.queue().stats.stalled = true;
            waited += pause;
            pause = rest(pause).await;
        }
        batch.clear();
    }

    /// Writes each entry alone; what is left of the batch is refused. An entry about a conversation of
    /// which an earlier one is left is left too: written before it, it would be about nothing.
    async fn write_each(&self, store: &Store, batch: &mut Vec<Entry>) {
        let mut left = HashSet::new();
        for entry in std::mem::take(batch) {
            let about = entry.conversation();
            let is_behind = about.is_some_and(|id| left.contains(&id));
            if is_behind || !self.try_write(store, std::slice::from_ref(&entry)).await {
                left.extend(about);
                batch.push(entry);
            }
        }
    }

    /// Drops what the store will not take. The entries themselves are nobody's to read in a log.
    fn give_up(&self, batch: &mut Vec<Entry>) {
        let mut queue = self.shared.queue();
        queue.stats.stalled = false;
        for entry in batch.drain(..) {
            let (kind, id) = entry.label();
            tracing::error!(kind, id, "an entry of the journal cannot be written");
            queue.stats.unwritable += 1;
            queue.in_flight = queue.in_flight.saturating_sub(1);
        }
    }

    /// Writes entries, waiting as long as the store is unavailable; says whether they are durable.
    async fn try_write(&self, store: &Store, entries: &[Entry]) -> bool {
        let mut pause = PAUSE_FIRST_MS;
        loop {
            match store.write_entries(entries).await {
                Ok(()) => {
                    let mut queue = self.shared.queue();
                    queue.stats.stalled = false;
                    queue.stats.written += u64::try_from(entries.len()).unwrap_or(u64::MAX);
                    queue.in_flight = queue.in_flight.saturating_sub(entries.len());
                    return true;
                }
                Err(StoreError::Unavailable(why)) => {
                    if !std::mem::replace(&mut self.shared.queue().stats.stalled, true) {
                        tracing::warn!(%why, "the journal waits for the store");
                    }
                    pause = rest(pause).await;
                }
                Err(_) => return false,
            }
        }
    }
}

/// What the store wants done now and then. Nothing here is lost by failing.
async fn look_after(store: &Store) {
    if let Err(error) = store.flush_last_used().await {
        tracing::warn!(%error, "when keys were last used is not written down yet");
    }
}

/// Pauses, and returns the next, longer pause.
async fn rest(pause_ms: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    (pause_ms * 2).min(PAUSE_MAX_MS)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::clock::Timestamp;
    use crate::credential::Operator;
    use crate::ids::{DecisionId, OrganisationId};
    use crate::model::{
        ConversationFilter, ConversationStatus, DecisionFilter, Direction, EndReason, Page,
    };
    use crate::store::tests::{Scratch, options};

    fn opened(organisation: OrganisationId, number: i64) -> Conversation {
        let at = Timestamp::from_micros(number);
        Conversation {
            user_id: number.to_string(),
            ..Conversation::begun(organisation, Direction::Inbound, at)
        }
    }

    fn open(conversation: &Conversation) -> Entry {
        Entry::ConversationOpened(Box::new(conversation.clone()))
    }

    fn changed(conversation: &Conversation) -> Entry {
        let at = conversation.created_at;
        Entry::ConversationChanged(ConversationChange {
            answered_at: Some(at),
            ..ConversationChange::to(conversation.id, ConversationStatus::InProgress, at)
        })
    }

    fn closed(conversation: &Conversation, status: ConversationStatus) -> Entry {
        Entry::ConversationClosed(Box::new(ConversationClose {
            id: conversation.id,
            status,
            end_reason: EndReason::new("caller_hangup", "caller"),
            duration_s: Some(1),
            transfer: None,
            quality: None,
            closed_at: conversation.created_at,
            post: None,
        }))
    }

    fn decision(rule: &'static str) -> Entry {
        Entry::Decision(Box::new(Decision {
            id: DecisionId::random(),
            at: Timestamp::from_micros(1),
            organization_id: None,
            source_ip: "192.0.2.1".to_owned(),
            source_port: 5060,
            transport: Cow::Borrowed("udp"),
            request_uri: String::new(),
            from: String::new(),
            called_raw: String::new(),
            called_number: None,
            trunks_considered: Vec::new(),
            rule: Cow::Borrowed(rule),
            explanation: String::new(),
            sip_status: None,
            sip_call_id: String::new(),
            conversation_id: None,
            routing: None,
        }))
    }

    #[tokio::test]
    async fn a_locked_store_holds_nobody_up_and_loses_nothing() {
        let store = Scratch::new().await;
        let org = store.organisation().await;
        let locked = store.lock().await;

        let (journal, writer) = Journal::new(10_000);
        let writing = tokio::spawn(writer.run(store.store.clone()));
        let calls: Vec<_> = (1..=500).map(|n| opened(org.organisation(), n)).collect();
        for call in &calls {
            // Not a point to wait at among these: recording is an ordinary function.
            journal.record(open(call));
            journal.record(changed(call));
            journal.record(closed(call, ConversationStatus::Completed));
            journal.record(closed(call, ConversationStatus::Failed));
            journal.record(decision("no_trunk"));
        }
        tokio::task::yield_now().await;
        let stats = journal.stats();
        assert_eq!((stats.queued, stats.written), (2_500, 0));
        assert!(store.conversation(&org, calls[0].id).await.is_err());

        locked.release().await;
        journal.finish();
        writing.await.unwrap();
        let stats = journal.stats();
        assert_eq!((stats.queued, stats.written, stats.unwritable), (0, 2_500, 0));
        let filter = ConversationFilter::default();
        let stored = store.conversations(&org, &filter, Page::first(1_000)).await.unwrap();
        let users: Vec<_> = stored.iter().rev().map(|row| row.user_id.clone()).collect();
        assert_eq!(users, (1..=500).map(|n| n.to_string()).collect::<Vec<_>>());
        assert!(stored.iter().all(|row| row.status == ConversationStatus::Completed));
        assert!(stored.iter().all(|row| row.answered_at.is_some()));
    }

    #[tokio::test]
    async fn a_store_that_is_unavailable_is_tried_again() {
        let store = Scratch::new().await; // its verbs do not wait for a lock at all
        let org = store.organisation().await;
        let (journal, writer) = Journal::new(100);
        let call = opened(org.organisation(), 1);
        journal.record(open(&call));
        let mut batch = Vec::new();
        journal.0.queue().take(&mut batch);
        let locked = store.lock().await;
        let writing = {
            let store = store.store.clone();
            tokio::spawn(async move { writer.write(&store, &mut batch).await })
        };
        while !journal.stats().stalled {
            tokio::task::yield_now().await;
        }
        assert_eq!(journal.stats().queued, 1, "a batch is queued until it is durable");
        locked.release().await;
        writing.await.unwrap();
        assert_eq!(journal.stats(), JournalStats { written: 1, ..JournalStats::default() });
        assert!(store.conversation(&org, call.id).await.is_ok());
    }

    #[tokio::test]
    async fn one_unwritable_entry_does_not_hold_up_the_rest() {
        let store = Scratch::new().await;
        let org = store.organisation().await;
        let (journal, writer) = Journal::new(100);
        let writer = JournalWriter { patience_ms: 100, ..writer };
        let (orphan, good) = (opened(OrganisationId::random(), 1), opened(org.organisation(), 2));
        journal.record(open(&orphan));
        journal.record(open(&good));
        journal.finish();
        writer.run(store.store.clone()).await;
        let stats = journal.stats();
        assert_eq!((stats.queued, stats.written, stats.unwritable), (0, 1, 1));
        assert!(store.conversation(&org, good.id).await.is_ok());
    }

    #[tokio::test]
    async fn a_store_that_refuses_everything_for_a_while_loses_nothing() {
        let store = Scratch::new().await;
        let org = store.organisation().await;
        let (journal, writer) = Journal::new(100);
        let call = opened(org.organisation(), 1);
        journal.record(open(&call));
        journal.record(changed(&call));
        journal.record(closed(&call, ConversationStatus::Completed));
        let mut batch = Vec::new();
        journal.0.queue().take(&mut batch);
        store.run("ALTER TABLE conversations RENAME TO elsewhere").await;
        let writing = {
            let store = store.store.clone();
            tokio::spawn(async move { writer.write(&store, &mut batch).await })
        };
        while !journal.stats().stalled {
            tokio::task::yield_now().await;
        }
        store.run("ALTER TABLE elsewhere RENAME TO conversations").await;
        writing.await.unwrap();
        assert_eq!(journal.stats(), JournalStats { written: 3, ..JournalStats::default() });
        let stored = store.conversation(&org, call.id).await.unwrap();
        assert_eq!(stored.status, ConversationStatus::Completed);
    }

    #[tokio::test]
    async fn the_writer_first_closes_what_a_crash_left_open() {
        let store = Scratch::new().await;
        let org = store.organisation().await;
        let (left, new) = (opened(org.organisation(), 1), opened(org.organisation(), 2));
        store.open_conversation(&org, left.clone()).await.unwrap();
        let (journal, writer) = Journal::new(100);
        journal.record(open(&new));
        journal.finish();
        writer.run(store.again(options()).await).await;
        let status =
            async |row: &Conversation| store.conversation(&org, row.id).await.unwrap().status;
        assert_eq!(status(&left).await, ConversationStatus::Failed);
        assert_eq!(status(&new).await, ConversationStatus::Ringing);
    }

    #[test]
    fn decisions_make_way_and_an_end_always_has_its_place() {
        let (journal, _writer) = Journal::new(8);
        for _ in 0..10 {
            journal.record(decision("flood"));
        }
        assert_eq!((journal.stats().queued, journal.stats().dropped_decisions), (8, 2));
        let organisation = OrganisationId::random();
        let calls: Vec<_> = (0..5).map(|n| opened(organisation, n)).collect();
        for call in &calls {
            journal.record(open(call)); // 4 fit with their ends; all decisions make way
        }
        let stats = journal.stats();
        assert_eq!((stats.queued, stats.dropped_decisions), (4, 10));
        assert_eq!(stats.dropped_conversations, 1);
        journal.record(changed(&calls[0]));
        assert_eq!(journal.stats().dropped_conversations, 2, "a change has no place reserved");
        for call in &calls[..4] {
            journal.record(closed(call, ConversationStatus::Completed));
        }
        assert_eq!((journal.stats().queued, journal.stats().dropped_conversations), (8, 2));
        journal.record(closed(&calls[4], ConversationStatus::Completed));
        assert_eq!(journal.stats().dropped_conversations, 3, "it never began");
    }

    #[test]
    fn a_journal_is_behind_when_conversations_fill_it_and_the_store_works() {
        let (journal, _writer) = Journal::new(8);
        for _ in 0..8 {
            journal.record(decision("flood"));
        }
        assert!(!journal.is_behind(), "decisions make way");
        let calls: Vec<_> = (0..4).map(|n| opened(OrganisationId::random(), n)).collect();
        for call in &calls[..3] {
            journal.record(open(call));
        }
        assert!(!journal.is_behind());
        journal.record(open(&calls[3]));
        assert!(journal.is_behind());
        let taken = |ago| {
            journal.0.queue().taken_at = Some(Instant::now() - Duration::from_millis(ago));
            journal.is_behind()
        };
        assert!(taken(0) && !taken(FROZEN_MS + 1), "a store that hangs takes nothing");
        journal.0.queue().taken_at = None;
        journal.0.queue().stats.stalled = true;
        assert!(!journal.is_behind(), "calls go on without a store");
    }

    #[test]
    fn an_end_that_is_expected_has_its_place_too() {
        let (journal, _writer) = Journal::new(2);
        journal.record(decision("makes way"));
        let calls: Vec<_> = (0..3).map(|n| opened(OrganisationId::random(), n)).collect();
        assert!(journal.expect_end(calls[0].id) && journal.expect_end(calls[1].id));
        assert!(journal.expect_end(calls[0].id), "once is enough");
        assert!(!journal.expect_end(calls[2].id));
        journal.forget_end(calls[0].id);
        assert!(journal.expect_end(calls[2].id), "the place of another");
        journal.forget_end(calls[2].id);
        assert!(journal.expect_end(calls[0].id));
        journal.record(decision("flood"));
        journal.record(changed(&calls[0]));
        for call in &calls {
            journal.record(closed(call, ConversationStatus::Unanswered));
        }
        let stats = journal.stats();
        assert_eq!((stats.queued, stats.dropped_conversations), (2, 2));
        assert_eq!(stats.dropped_decisions, 2);
    }

    #[tokio::test]
    async fn conversations_are_written_before_decisions_and_each_in_order() {
        let store = Scratch::new().await;
        let org = store.organisation().await;
        let (journal, writer) = Journal::new(100);
        for rule in ["first", "second"] {
            journal.record(decision(rule));
        }
        let call = opened(org.organisation(), 1);
        journal.record(open(&call));
        let mut batch = Vec::new();
        journal.0.queue().take(&mut batch);
        assert!(matches!(batch.first(), Some(Entry::ConversationOpened(_))));
        writer.write(&store, &mut batch).await;
        let page = Page::default();
        let by = Operator::by_process();
        let all = DecisionFilter::default();
        let read = store.unattributed_decisions(&by, &all, page).await.unwrap();
        let rules: Vec<_> = read.iter().map(|decision| decision.rule.as_ref()).collect();
        assert_eq!(rules, ["second", "first"]);
    }
}

//! The table of live calls: written by the shard, read by the API, which also asks for things through it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::calls::{
    DialRefused, DialRequest, LiveCall, LiveCalls, NoSuchCall, Reserved, TransferRefused,
    TransferRequest,
};
use config::ids::{ConversationId, OrganisationId};
use config::journal::Journal;
use config::model::{ConversationStatus, Direction};
use config::snapshot::SnapshotHandle;
use tokio::sync::mpsc::{self, OwnedPermit};

use super::Command;
use super::record::Record;
use crate::call::places::{DialLimits, Standing, may_come};

/// One call as the API may see it.
#[derive(Debug)]
struct Seen {
    call: LiveCall,
    /// Whether it is to be placed: it is on its way to the shard, or waits there.
    pending: bool,
    transfer: Transferring,
}

/// Whether a call is being handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transferring {
    No,
    UnderWay,
    /// It was; its conversation is over though the call goes on.
    Done,
}

/// Calls that are up or wait, and places that are kept for some.
#[derive(Debug, Default)]
struct Table {
    calls: HashMap<ConversationId, Seen>,
    /// For whom a place is kept, by the conversation that is to be, and how often it was asked for.
    reserved: HashMap<ConversationId, (OrganisationId, usize)>,
}

impl Table {
    /// Whether an organisation may bring one more call.
    fn may_come(
        &self,
        (organisation, limits): (OrganisationId, DialLimits),
        limit_of: impl Fn(OrganisationId) -> usize,
    ) -> bool {
        let mut standings: HashMap<OrganisationId, Standing> = HashMap::new();
        let (mut up, mut placed) = (0, 0);
        standings.entry(organisation).or_default();
        for (whose, _) in self.reserved.values() {
            standings.entry(*whose).or_default().pending += 1;
        }
        for seen in self.calls.values() {
            let of = standings.entry(seen.call.organization_id).or_default();
            of.pending += usize::from(seen.pending);
            up += usize::from(!seen.pending);
            if !seen.pending && seen.call.direction == Direction::Outbound {
                of.placed += 1;
                placed += 1;
            }
        }
        for (whose, standing) in &mut standings {
            standing.limit = limit_of(*whose).min(limits.queue.total);
        }
        let own = standings.remove(&organisation).unwrap_or_default();
        let others: Vec<Standing> = standings.into_values().collect();
        let free = limits.queue.total.saturating_sub(placed).min(limits.calls.saturating_sub(up));
        may_come(own, &others, free, limits.queue)
    }
}

type Shared = Arc<Mutex<Table>>;

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls that are up or wait, and the way to ask something of them.
#[derive(Debug)]
pub struct LiveTable {
    table: Shared,
    draining: AtomicBool,
    limits: DialLimits,
    snapshot: SnapshotHandle,
    journal: Journal,
    commands: mpsc::Sender<Command>,
}

impl LiveTable {
    /// An empty table whose requests go to `commands`, with these limits for calls out.
    #[must_use]
    pub fn new(
        snapshot: SnapshotHandle,
        journal: Journal,
        (commands, limits): (mpsc::Sender<Command>, DialLimits),
    ) -> Self {
        LiveTable {
            table: Shared::default(),
            draining: AtomicBool::new(false),
            limits,
            snapshot,
            journal,
            commands,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    pub(super) fn started(&self, record: &Record) {
        let seen = Seen { call: record.shown(), pending: false, transfer: Transferring::No };
        self.table().calls.insert(record.id(), seen);
    }

    /// A call out has begun: it waits no longer.
    pub(super) fn placed(&self, record: &Record) {
        if let Some(seen) = self.table().calls.get_mut(&record.id()) {
            seen.pending = false;
        }
    }

    pub(super) fn changed(&self, record: &Record, status: ConversationStatus) {
        if let Some(seen) = self.table().calls.get_mut(&record.id()) {
            seen.call.status = status;
            seen.call.answered_at = record.answered_at();
        }
    }

    /// It is known who answers.
    pub(super) fn answered_by(&self, record: &Record) {
        if let Some(seen) = self.table().calls.get_mut(&record.id()) {
            seen.call.agent_id = record.shown().agent_id;
        }
    }

    /// The call was handed on: nothing more can be asked of it but its end.
    pub(super) fn transferred(&self, record: &Record) {
        if let Some(seen) = self.table().calls.get_mut(&record.id()) {
            seen.transfer = Transferring::Done;
        }
    }

    /// A transfer has failed; another may be tried.
    pub(super) fn transfer_over(&self, id: ConversationId) {
        if let Some(seen) = self.table().calls.get_mut(&id) {
            seen.transfer = Transferring::No;
        }
    }

    pub(super) fn ended(&self, record: &Record) {
        self.table().calls.remove(&record.id());
    }

    /// Notes that no new calls are taken.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}

impl LiveCalls for LiveTable {
    fn live(&self) -> usize {
        self.table().calls.len()
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn list(&self, organisation: OrganisationId) -> Vec<LiveCall> {
        let table = self.table();
        let own = table.calls.values().filter(|seen| seen.call.organization_id == organisation);
        let mut calls: Vec<LiveCall> = own.map(|seen| seen.call.clone()).collect();
        drop(table);
        calls.sort_by_key(|call| call.started_at);
        calls
    }

    fn reserve(
        &self,
        organisation: OrganisationId,
        id: ConversationId,
    ) -> Result<Box<dyn Reserved>, DialRefused> {
        if self.draining() {
            return Err(DialRefused::Draining);
        }
        let full = |_| DialRefused::QueueFull;
        let permit = self.commands.clone().try_reserve_owned().map_err(full)?;
        let snapshot = self.snapshot.load();
        let limit_of = |whose| self.limits.of(&snapshot, whose);
        let mut table = self.table();
        let comes = table.may_come((organisation, self.limits), limit_of);
        if !comes || !self.journal.expect_end(id) {
            return Err(DialRefused::QueueFull);
        }
        table.reserved.entry(id).or_insert((organisation, 0)).1 += 1;
        drop(table);
        let (table, journal) = (Arc::clone(&self.table), self.journal.clone());
        Ok(Box::new(Place { id, table, journal, permit: Some(permit) }))
    }

    fn hang_up(&self, organisation: OrganisationId, id: ConversationId) -> Result<(), NoSuchCall> {
        let known = self
            .table()
            .calls
            .get(&id)
            .is_some_and(|seen| seen.call.organization_id == organisation);
        if !known {
            return Err(NoSuchCall);
        }
        self.commands.try_send(Command::HangUp { id }).map_err(|_| NoSuchCall)
    }

    fn transfer(
        &self,
        organisation: OrganisationId,
        id: ConversationId,
        request: TransferRequest,
    ) -> Result<(), TransferRefused> {
        let mut table = self.table();
        let own = table.calls.get_mut(&id).filter(|seen| seen.call.organization_id == organisation);
        let seen = own.ok_or(TransferRefused::NoSuchCall)?;
        if seen.call.status != ConversationStatus::InProgress {
            return Err(TransferRefused::NotActive);
        }
        match seen.transfer {
            Transferring::No => {}
            Transferring::UnderWay => return Err(TransferRefused::AlreadyTransferring),
            Transferring::Done => return Err(TransferRefused::NotActive),
        }
        let snapshot = self.snapshot.load();
        let trunk = seen.call.trunk_id.and_then(|trunk| snapshot.trunk(trunk));
        if !trunk.is_some_and(|trunk| trunk.has_outbound()) {
            return Err(TransferRefused::NoOutbound);
        }
        let command = Command::Transfer { id, request };
        self.commands.try_send(command).map_err(|_| TransferRefused::NotActive)?;
        seen.transfer = Transferring::UnderWay;
        Ok(())
    }
}

/// A place among the calls out: for the call, in the queue to the shard, and for its end in the journal.
struct Place {
    id: ConversationId,
    table: Shared,
    journal: Journal,
    permit: Option<OwnedPermit<Command>>,
}

impl Reserved for Place {
    fn dial(mut self: Box<Self>, request: DialRequest) {
        let Some(permit) = self.permit.take() else { return };
        // In the table before it is on its way, so that it can be withdrawn from now on.
        let call = Record::of(&request.conversation).shown();
        let seen = Seen { call, pending: true, transfer: Transferring::No };
        lock(&self.table).calls.insert(self.id, seen);
        permit.send(Command::Dial(Box::new(request)));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        let Some((_, asked)) = table.reserved.get_mut(&self.id) else { return };
        *asked -= 1;
        if *asked == 0 {
            table.reserved.remove(&self.id);
            // Once dialled, the place in the journal is the call's, even if that is over.
            if self.permit.is_some() && !table.calls.contains_key(&self.id) {
                self.journal.forget_end(self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use config::clock::Timestamp;
    use config::ids::TrunkId;
    use config::model::{Conversation, Runtime};

    use super::*;
    use crate::call::queue::QueueLimits;

    /// A table whose organisations may have one call out each, and of whose calls four may wait.
    fn table(ends: usize) -> (LiveTable, mpsc::Receiver<Command>) {
        let queue = QueueLimits { total: 10, waiting: 4, patience: Duration::from_secs(1) };
        let limits = DialLimits { queue, each: 1, calls: 10 };
        let (commands, comes) = mpsc::channel(100);
        let (journal, _) = Journal::new(ends);
        (LiveTable::new(SnapshotHandle::default(), journal, (commands, limits)), comes)
    }

    fn conversation(whose: OrganisationId) -> Conversation {
        Conversation::begun(whose, Direction::Outbound, Timestamp::from_micros(0))
    }

    fn dialled(table: &LiveTable, whose: OrganisationId) -> Result<Record, DialRefused> {
        let conversation = conversation(whose);
        let record = Record::of(&conversation);
        table.reserve(whose, conversation.id)?.dial(DialRequest {
            conversation: Box::new(conversation),
            organisation: whose,
            number: "+15550001".parse().expect("a number"),
            callee: "+15550002".parse().expect("a number"),
            trunk: TrunkId::random(),
            agent: None,
            version: None,
            runtime: Runtime::default(),
            workflows: Arc::default(),
        });
        Ok(record)
    }

    #[test]
    fn one_organisation_fills_half_of_the_queue_and_others_go_at_once() {
        let (table, mut comes) = table(100);
        let [many, others @ ..] = [(); 4].map(|()| OrganisationId::random());
        let first = dialled(&table, many).expect("it can go");
        table.placed(&first);
        for _ in 0..2 {
            dialled(&table, many).expect("it can wait");
        }
        assert_eq!(dialled(&table, many).err(), Some(DialRefused::QueueFull));
        for whose in others {
            table.placed(&dialled(&table, whose).expect("it can go"));
        }
        table.ended(&first);
        let next = dialled(&table, many).expect("one of those that waited can go");
        assert_eq!(dialled(&table, many).err(), Some(DialRefused::QueueFull));
        table.ended(&next);
        assert!(dialled(&table, many).is_ok());
        assert_eq!(std::iter::from_fn(|| comes.try_recv().ok()).count(), 8);
    }

    #[test]
    fn a_place_that_is_not_used_is_free_again_and_leaves_nothing() {
        let (table, _comes) = table(2);
        let whose = OrganisationId::random();
        let ids = [(); 3].map(|()| conversation(whose).id);
        for _ in 0..3 {
            let places = [ids[0], ids[1]].map(|id| table.reserve(whose, id).expect("a place"));
            assert!(table.reserve(whose, ids[2]).is_err(), "the journal has no more");
            let again = table.reserve(whose, ids[0]).expect("the same call");
            drop(places);
            assert!(table.reserve(whose, ids[2]).is_ok());
            let other = table.reserve(whose, ids[1]).expect("a place");
            assert!(table.reserve(whose, ids[2]).is_err(), "who asked twice still has it");
            drop((again, other));
            assert!(table.list(whose).is_empty());
        }
    }
}

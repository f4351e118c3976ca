//! The table of live calls: written by the shard, read by the API, which also asks for things through it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use config::calls::{
    DialRefused, DialRequest, LiveCall, LiveCalls, NoSuchCall, TransferRefused, TransferRequest,
};
use config::ids::{ConversationId, OrganisationId};
use config::journal::Journal;
use config::model::ConversationStatus;
use config::snapshot::SnapshotHandle;
use tokio::sync::mpsc;

use super::Command;
use super::record::Record;

/// One call as the API may see it.
#[derive(Debug)]
struct Seen {
    call: LiveCall,
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

/// Calls that are up or wait, and the way to ask something of them.
#[derive(Debug)]
pub struct LiveTable {
    calls: Mutex<HashMap<ConversationId, Seen>>,
    draining: AtomicBool,
    /// Most calls that may wait.
    most_waiting: usize,
    snapshot: SnapshotHandle,
    journal: Journal,
    commands: mpsc::Sender<Command>,
}

impl LiveTable {
    /// An empty table whose requests go to `commands`, and of whose calls so many may wait.
    #[must_use]
    pub fn new(
        snapshot: SnapshotHandle,
        journal: Journal,
        (commands, most_waiting): (mpsc::Sender<Command>, usize),
    ) -> Self {
        LiveTable {
            calls: Mutex::default(),
            draining: AtomicBool::new(false),
            most_waiting,
            snapshot,
            journal,
            commands,
        }
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<ConversationId, Seen>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn started(&self, record: &Record) {
        let seen = Seen { call: record.shown(), transfer: Transferring::No };
        self.calls().insert(record.id(), seen);
    }

    pub(super) fn changed(&self, record: &Record, status: ConversationStatus) {
        if let Some(seen) = self.calls().get_mut(&record.id()) {
            seen.call.status = status;
            seen.call.answered_at = record.answered_at();
        }
    }

    /// It is known who answers.
    pub(super) fn answered_by(&self, record: &Record) {
        if let Some(seen) = self.calls().get_mut(&record.id()) {
            seen.call.agent_id = record.shown().agent_id;
        }
    }

    /// The call was handed on: nothing more can be asked of it but its end.
    pub(super) fn transferred(&self, record: &Record) {
        if let Some(seen) = self.calls().get_mut(&record.id()) {
            seen.transfer = Transferring::Done;
        }
    }

    /// A transfer has failed; another may be tried.
    pub(super) fn transfer_over(&self, id: ConversationId) {
        if let Some(seen) = self.calls().get_mut(&id) {
            seen.transfer = Transferring::No;
        }
    }

    pub(super) fn ended(&self, record: &Record) {
        self.calls().remove(&record.id());
    }

    /// Notes that no new calls are taken.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }
}

impl LiveCalls for LiveTable {
    fn live(&self) -> usize {
        self.calls().len()
    }

    fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn list(&self, organisation: OrganisationId) -> Vec<LiveCall> {
        let table = self.calls();
        let own = table.values().filter(|seen| seen.call.organization_id == organisation);
        let mut calls: Vec<LiveCall> = own.map(|seen| seen.call.clone()).collect();
        drop(table);
        calls.sort_by_key(|call| call.started_at);
        calls
    }

    fn dial(&self, request: DialRequest) -> Result<(), DialRefused> {
        if self.draining() {
            return Err(DialRefused::Draining);
        }
        let id = request.conversation.id;
        // In the table before it is on its way, so that it can be withdrawn from now on.
        let seen =
            Seen { call: Record::of(&request.conversation).shown(), transfer: Transferring::No };
        {
            let mut calls = self.calls();
            let waits = |seen: &&Seen| seen.call.status == ConversationStatus::Triggered;
            if calls.values().filter(waits).count() >= self.most_waiting
                || !self.journal.expect_end(id)
            {
                return Err(DialRefused::QueueFull);
            }
            calls.insert(id, seen);
        }
        if self.commands.try_send(Command::Dial(Box::new(request))).is_err() {
            self.calls().remove(&id);
            self.journal.forget_end(id);
            return Err(DialRefused::QueueFull);
        }
        Ok(())
    }

    fn hang_up(&self, organisation: OrganisationId, id: ConversationId) -> Result<(), NoSuchCall> {
        let known =
            self.calls().get(&id).is_some_and(|seen| seen.call.organization_id == organisation);
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
        let mut calls = self.calls();
        let own = calls.get_mut(&id).filter(|seen| seen.call.organization_id == organisation);
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

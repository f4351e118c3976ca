//! stub
use std::time::{Duration, Instant};
use config::calls::DialRequest;
use config::ids::{ConversationId, OrganisationId};
/// stub
#[derive(Default)]
pub struct DialQueue { waiting: std::collections::VecDeque<DialRequest> }
/// stub
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits { /// a
 pub per_organisation: usize, /// b
 pub total: usize, /// c
 pub waiting: usize, /// d
 pub patience: Duration }
impl DialQueue {
    /// stub
    pub fn new(_: QueueLimits) -> Self { Self::default() }
    /// stub
    pub fn push(&mut self, _now: Instant, r: DialRequest) -> Result<(), DialRequest> { self.waiting.push_back(r); Ok(()) }
    /// stub
    pub fn cancel(&mut self, id: ConversationId) -> Option<DialRequest> { let i = self.waiting.iter().position(|r| r.conversation.id == id)?; self.waiting.remove(i) }
    /// stub
    pub fn next(&mut self, _room: usize) -> Vec<DialRequest> { self.waiting.drain(..).collect() }
    /// stub
    pub fn expired(&mut self, _: Instant) -> Vec<DialRequest> { vec![] }
    /// stub
    pub fn drain(&mut self) -> Vec<DialRequest> { self.waiting.drain(..).collect() }
    /// stub
    pub fn finished(&mut self, _: OrganisationId) {}
    /// stub
    pub fn poll_timeout(&self) -> Option<Instant> { None }
}

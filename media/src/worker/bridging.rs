//! Two sessions of one worker that are each other's far side.
//!
//! ```text
//!   tenant A ──Crossing──► worker ──► tenant B        neither knows the other; the worker carries
//!            ◄──────────── worker ◄── Crossing        what one has heard over to the other
//! ```
//!
//! Both tenants name each other or neither does. They are never borrowed at the same time, so a
//! panic in one finds the other at rest; what is left to it is silence.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::network::Network;
use super::slab::SlabKey;
use super::thread::Worker;
use crate::command::{Far, SessionKey};
use crate::session::{Crossing, OtherLeg, Session};

impl Worker {
    /// Makes two sessions each other's far side, whatever stood there before. Nothing happens if
    /// one of them is gone.
    pub(super) fn bridge(&mut self, a: SessionKey, b: SessionKey) {
        let (Some(a), Some(b)) = (self.sound(a), self.sound(b)) else { return };
        for (key, other) in [(a, b), (b, a)] {
            if self.partner(key).is_some_and(|partner| partner != other) {
                self.dissolve(key);
            }
        }
        for (key, other) in [(a, b), (b, a)] {
            if let Some(tenant) = self.tenants.get_mut(key) {
                tenant.partner = Some(other);
            }
        }
        self.introduce(a);
        self.introduce(b);
    }

    /// Tells the partner of `key`, if it has one, what it has to know of that session: after they
    /// were bridged, and after a new plan.
    pub(super) fn introduce(&mut self, key: SlabKey) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        let (Some(partner), other) = (tenant.partner, tenant.session.as_other_leg()) else {
            return;
        };
        self.tell_other(partner, other);
    }

    fn tell_other(&mut self, key: SlabKey, other: OtherLeg) {
        self.guarded(key, |session| session.face(other));
    }

    /// Ends the bridge that `key` is part of, if any: its partner hears silence from now on.
    pub(super) fn dissolve(&mut self, key: SlabKey) {
        let Some(tenant) = self.tenants.get_mut(key) else { return };
        let Some(partner) = tenant.partner.take() else { return };
        let Some(other) = self.tenants.get_mut(partner) else { return };
        other.partner = None;
        self.guarded(partner, |session| session.connect(Far::Nobody));
    }

    /// Carries what the partner of `to` has heard over to it. It came at `since`, if that is known.
    pub(super) fn carry(&mut self, to: SlabKey, crossing: &Crossing, since: Option<Instant>) {
        let Some(tenant) = self.tenants.get_mut(to).filter(|tenant| !tenant.faulty) else {
            return;
        };
        let (session, ports) = (&mut tenant.session, &tenant.ports);
        let mut network = Network { ports, shared: &self.shared, events: &self.events, since };
        let buffer = self.buffer.as_mut_slice();
        let done = catch_unwind(AssertUnwindSafe(|| session.cross(crossing, buffer, &mut network)));
        if done.is_err() {
            self.retire(to);
        }
    }

    fn partner(&mut self, key: SlabKey) -> Option<SlabKey> {
        self.tenants.get_mut(key)?.partner
    }

    /// The session of this name, if it is here and in use.
    fn sound(&mut self, name: SessionKey) -> Option<SlabKey> {
        let key = *self.keys.get(&name)?;
        self.tenants.get_mut(key).filter(|tenant| !tenant.faulty).map(|_| key)
    }

    fn guarded(&mut self, key: SlabKey, act: impl FnOnce(&mut Session)) {
        let Some(tenant) = self.tenants.get_mut(key).filter(|tenant| !tenant.faulty) else {
            return;
        };
        if catch_unwind(AssertUnwindSafe(|| act(tenant.awake()))).is_err() {
            self.retire(key);
        }
    }
}

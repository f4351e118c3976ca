//! When a connection breaks under a call: media does not care, but the next BYE must find a way.
//!
//! A leg that we dialled over TCP or TLS gets another connection to the same target, whose certificate
//! is checked like the first one's, and its dialog moves there (RFC 3261 §18.4). When such a call ends and
//! its BYE is lost with the connection, or there is none, the BYE is said once more on the other one. A leg
//! that was dialled to us waits for its peer, which knows where we are; where it is nobody has proved.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sip::Flow;
use sip::endpoint::DialogId;
use tracing::{debug, info};

use super::Shard;
use super::call::Call;
use super::leg::Side;
use super::login::Login;
use crate::call::end::EndRow;
use crate::net::reach::Target;
use crate::net::reach::{ConnectError, Connection};

/// Marks tickets of connections for legs that are up; the others are for legs being dialled.
const UP: u64 = 1 << 63;

/// A connection that lasts no longer is not replaced for a call that goes on.
const SOON: Duration = Duration::from_secs(1);

fn ticket(key: u64, side: Side) -> u64 {
    UP | side.session(key).0
}

/// A leg that is getting another connection.
pub(super) struct Moving {
    /// The flow of its dialog so far.
    broken: Flow,
    /// The leg is over, and its BYE waits for the connection.
    farewell: Option<Farewell>,
}

impl Moving {
    /// The leg is over, and its BYE waits for the connection.
    pub(super) fn holds_bye(&self) -> bool {
        self.farewell.is_some()
    }
}

/// The BYE of a leg that is over, and all it takes to say it once more.
pub(super) struct Farewell {
    pub(super) dialog: DialogId,
    pub(super) login: Option<Arc<Login>>,
    pub(super) row: EndRow,
    /// Where the peer can be reached again; `None` when the BYE is not said once more.
    pub(super) target: Option<Target>,
}

impl Shard {
    /// A connection is gone: requests on it fail, and the legs that used it get another.
    pub(super) fn handle_flow_closed(&mut self, now: Instant, flow: &Flow) {
        self.endpoint.handle_flow_failed(now, flow);
        self.handle_registrar_closed(now, flow);
        let uses = |call: &Call, side: Side| {
            call.leg(side).is_some_and(|leg| {
                // A peer may have taken its dialog elsewhere. One that ends each connection at once is left
                // alone, until there is a BYE to say.
                let lasted = leg.moved_at.is_none_or(|at| now.duration_since(at) >= SOON);
                let flow_now = || leg.dialog.and_then(|dialog| self.endpoint.flow_of(dialog));
                leg.target.is_some() && lasted && flow_now() == Some(*flow)
            })
        };
        let legs: Vec<(u64, Side)> = self
            .calls
            .iter()
            .flat_map(|(key, call)| {
                Side::ALL.into_iter().filter(|side| uses(call, *side)).map(|side| (*key, side))
            })
            .collect();
        for (key, side) in legs {
            let target = self.calls.get(&key).and_then(|call| call.leg(side)?.target.clone());
            if let Some(target) = target {
                self.replace_connection((key, side), *flow, target);
            }
        }
    }

    /// Asks for another connection, unless one is on its way already.
    fn replace_connection(&mut self, (key, side): (u64, Side), broken: Flow, target: Target) {
        match self.moving.entry(ticket(key, side)) {
            Entry::Vacant(place) => {
                info!(call = key, ?side, remote = %target.address, "connection lost, opening another");
                place.insert(Moving { broken, farewell: None });
                self.services.reach.connect(ticket(key, side), target, 0);
            }
            Entry::Occupied(mut place) if !place.get().holds_bye() => {
                place.get_mut().broken = broken
            }
            Entry::Occupied(_) => {}
        }
    }

    /// A BYE is lost with its flow: it waits for another connection, or its dialog is forgotten.
    pub(super) fn handle_bye_lost(&mut self, (key, side): (u64, Side), mut farewell: Farewell) {
        let dialog = farewell.dialog;
        let (Some(target), Some(broken)) = (farewell.target.take(), self.endpoint.flow_of(dialog))
        else {
            return self.endpoint.forget(dialog);
        };
        self.replace_connection((key, side), broken, target);
        match self.moving.get_mut(&ticket(key, side)) {
            Some(moving) if !moving.holds_bye() => moving.farewell = Some(farewell),
            _ => self.endpoint.forget(dialog),
        }
    }

    /// Says a BYE once more. Where there is no other connection it fails, as it does on any that is
    /// gone, and its dialog is forgotten.
    fn bid_farewell(
        &mut self,
        now: Instant,
        (key, side): (u64, Side),
        (broken, farewell): (Flow, Farewell),
        result: &Result<Connection, ConnectError>,
    ) {
        match result {
            // Unless the peer itself has taken the dialog elsewhere.
            Ok(connection) if self.endpoint.flow_of(farewell.dialog) == Some(broken) => {
                if let Err(why) = self.endpoint.move_dialog(farewell.dialog, connection.flow) {
                    debug!(call = key, %why, "the dialog did not move");
                }
            }
            Ok(_) => {}
            Err(why) => info!(call = key, ?side, %why, "no other connection for BYE"),
        }
        self.send_bye(now, (key, side), farewell);
    }

    /// The other connection is there, or is not to be had. False when the ticket is a dial's.
    pub(super) fn handle_reconnected(
        &mut self,
        now: Instant,
        ticket: u64,
        result: &Result<Connection, ConnectError>,
    ) -> bool {
        if ticket & UP == 0 {
            return false;
        }
        let (key, side) = Side::of(media::SessionKey(ticket & !UP));
        match self.moving.remove(&ticket) {
            Some(Moving { broken, farewell: Some(farewell) }) => {
                self.bid_farewell(now, (key, side), (broken, farewell), result);
            }
            Some(Moving { broken, farewell: None }) => match result {
                Ok(connection) => self.move_leg(now, (key, side), broken, connection),
                Err(why) => info!(call = key, ?side, %why, "no other connection"),
            },
            None => {}
        }
        true
    }

    /// A leg that is up goes on over another connection, unless its peer has taken it elsewhere.
    fn move_leg(
        &mut self,
        now: Instant,
        (key, side): (u64, Side),
        broken: Flow,
        connection: &Connection,
    ) {
        let leg = self.calls.get_mut(&key).and_then(|call| call.leg_mut(side));
        let Some((leg, dialog)) = leg.and_then(|leg| leg.dialog.map(|dialog| (leg, dialog))) else {
            return;
        };
        if self.endpoint.flow_of(dialog) != Some(broken) {
            return;
        }
        match self.endpoint.move_dialog(dialog, connection.flow) {
            Ok(()) => {
                leg.flow = connection.flow;
                leg.hold = Some(connection.hold.clone());
                leg.moved_at = Some(now);
            }
            Err(why) => debug!(call = key, %why, "the dialog did not move"),
        }
    }
}

//! When a connection breaks under a call: media does not care, but the next BYE must find a way.
//!
//! A leg that we dialled over TCP or TLS gets another connection to the same target, whose certificate
//! is checked like the first one's, and its dialog moves there (RFC 3261 §18.4). A leg that was dialled
//! to us waits for its peer, which knows where we are; where it is nobody has proved.

use std::time::Instant;

use sip::Flow;
use tracing::{debug, info};

use super::Shard;
use super::leg::Side;
use crate::net::reach::{ConnectError, Connection};

/// Marks tickets of connections for legs that are up; the others are for legs being dialled.
const UP: u64 = 1 << 63;

fn ticket(key: u64, side: Side) -> u64 {
    UP | side.session(key).0
}

impl Shard {
    /// A connection is gone: requests on it fail, and the legs that used it get another.
    pub(super) fn handle_flow_closed(&mut self, now: Instant, flow: &Flow) {
        self.endpoint.handle_flow_failed(now, flow);
        self.handle_registrar_closed(now, flow);
        let uses = |call: &super::call::Call, side: Side| {
            call.leg(side).is_some_and(|leg| leg.flow == *flow && leg.target.is_some())
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
                info!(call = key, ?side, remote = %target.address, "connection lost, opening another");
                self.services.reach.connect(ticket(key, side), target, 0);
            }
        }
    }

    /// The other connection is there, or is not to be had. False when the ticket is a dial's.
    pub(super) fn handle_reconnected(
        &mut self,
        ticket: u64,
        result: &Result<Connection, ConnectError>,
    ) -> bool {
        if ticket & UP == 0 {
            return false;
        }
        let (key, side) = Side::of(media::SessionKey(ticket & !UP));
        let leg = self.calls.get_mut(&key).and_then(|call| call.leg_mut(side));
        let Some((leg, dialog)) = leg.and_then(|leg| leg.dialog.map(|dialog| (leg, dialog))) else {
            return true;
        };
        match result {
            Ok(connection) => match self.endpoint.move_dialog(dialog, connection.flow) {
                Ok(()) => {
                    leg.flow = connection.flow;
                    leg.hold = Some(connection.hold.clone());
                }
                Err(why) => debug!(call = key, %why, "the dialog did not move"),
            },
            Err(why) => info!(call = key, ?side, %why, "no other connection"),
        }
        true
    }
}

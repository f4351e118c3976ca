//! Messages and commands in an order nobody meant, many times over.
//!
//! Whatever comes: no panic, no deadline in the past, the bounds hold, and when everybody has fallen
//! silent no transaction is left.

use sip::endpoint::{
    ClientTx, CommandError, Content, DialogId, Event, Options, Reply, ServerTx, Trust,
};
use sip::{Method, Transport};

use crate::support::*;

/// A small generator of the scenario's own, so that a seed names a story.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { from.get(self.below(from.len())).cloned() }
    }
}

#[derive(Default)]
struct Known {
    servers: Vec<ServerTx>,
    clients: Vec<ClientTx>,
    dialogs: Vec<DialogId>,
    tags: Vec<String>,
    requests: Vec<String>,
}

impl Known {
    /// Remembers whatever the endpoint has said and told.
    fn learn(&mut self, solo: &mut Solo) {
        for text in solo.sent() {
            if text.starts_with("SIP/2.0") {
                self.tags.push(to_tag(&text));
            } else {
                self.requests.push(text);
            }
        }
        for event in solo.events() {
            match event {
                Event::Invite { tx, .. } | Event::Request { tx, .. } => self.servers.push(tx),
                Event::InDialog { tx, dialog, .. } => {
                    self.servers.push(tx);
                    self.dialogs.push(dialog);
                }
                Event::Response { dialog: Some(dialog), .. } => self.dialogs.push(dialog),
                _ => {}
            }
        }
    }
}

const METHODS: [&str; 9] =
    ["INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "INFO", "UPDATE", "PRACK", "NOTIFY"];
const STATUSES: [u16; 9] = [100, 180, 183, 200, 302, 401, 486, 491, 603];

/// The peer says something that may or may not fit.
fn peer(solo: &mut Solo, known: &Known, dice: &mut Dice) {
    let method = METHODS[dice.below(METHODS.len())];
    let branch = format!("z9hG4bK{}", dice.below(6));
    let text = match (dice.below(4), dice.pick(&known.requests), dice.pick(&known.tags)) {
        (0, Some(request), _) => {
            let status = STATUSES[dice.below(STATUSES.len())];
            response(&request, status, &format!("t{}", dice.below(3)), CONTACT)
        }
        (1, _, Some(tag)) => {
            within(method, u32::try_from(dice.below(12)).unwrap(), &tag, &branch, "")
        }
        (2, Some(request), _) => {
            let number = u32::try_from(dice.below(12)).unwrap();
            backwards(method, number, &request, &format!("t{}", dice.below(3)))
        }
        _ => opening(method, &branch, ""),
    };
    solo.trust = if dice.below(4) == 0 { Trust::Stranger } else { Trust::Known };
    solo.say(&text);
}

/// The application does something that may or may not fit.
fn application(solo: &mut Solo, known: &mut Known, dice: &mut Dice) -> Result<(), CommandError> {
    let now = solo.now;
    let (server, client) = (dice.pick(&known.servers), dice.pick(&known.clients));
    let dialog = dice.pick(&known.dialogs);
    let endpoint = &mut solo.endpoint;
    let mut elsewhere = solo.flow;
    elsewhere.connection += u64::from(elsewhere.connection > 0 && dice.below(2) == 0);
    match (dice.below(12), server, client, dialog) {
        (0..=2, Some(tx), _, _) => {
            let contact = Some(OUR_CONTACT);
            let status = STATUSES[dice.below(STATUSES.len())];
            known.dialogs.extend(endpoint.respond(
                now,
                tx,
                Reply { contact, ..Reply::new(status) },
            )?);
        }
        (3, Some(tx), _, _) => endpoint.ignore(now, tx),
        (4, _, Some(tx), _) => endpoint.cancel(now, tx)?,
        (5, _, Some(tx), _) => {
            known.clients.push(endpoint.retry_with(now, tx, &[("Authorization", "Digest x")])?);
        }
        (6, _, _, Some(dialog)) => endpoint.ack(now, dialog, None)?,
        (7, _, _, Some(dialog)) => {
            let methods = [Method::Bye, Method::Invite, Method::Info, Method::Update];
            let method = methods[dice.below(methods.len())];
            known.clients.push(endpoint.request(now, dialog, method, Content::default())?);
        }
        (8, _, _, Some(dialog)) => endpoint.dismiss(now, dialog)?,
        (9, _, _, Some(dialog)) => endpoint.move_dialog(dialog, elsewhere)?,
        (10, _, Some(tx), _) => known.clients.push(endpoint.retry_on(now, tx, elsewhere, &[])?),
        _ => {
            let invite = sip::endpoint::Invite {
                flow: solo.flow,
                request_uri: "sip:b@x",
                from: "<sip:a@x>",
                to: "<sip:b@x>",
                contact: OUR_CONTACT,
                headers: &[],
                body: None,
                call_id: None,
            };
            known.clients.push(endpoint.invite(now, invite)?);
        }
    }
    Ok(())
}

fn story(seed: u64, transport: Transport) {
    let options =
        Options { max_transactions: 40, max_strangers: 5, max_dialogs: 12, ..Options::default() };
    let mut solo = Solo::with(options, transport);
    let (mut known, mut dice) = (Known::default(), Dice(seed));
    let mut ms = 0;
    for _ in 0..400 {
        match dice.below(8) {
            0..=3 => peer(&mut solo, &known, &mut dice),
            4..=5 => {
                // Most commands do not fit; what they must not do is break anything.
                let _ = application(&mut solo, &mut known, &mut dice);
                solo.drain();
            }
            6 => {
                ms += [1, 500, 5_000, 33_000][dice.below(4)];
                solo.pass(ms);
            }
            _ if dice.below(10) == 0 => {
                let flow = solo.flow;
                solo.endpoint.handle_flow_failed(solo.now, &flow);
                solo.drain();
            }
            _ => solo.endpoint.set_busy(dice.below(3) == 0),
        }
        known.learn(&mut solo);
        let load = solo.endpoint.load();
        assert!(load.server_transactions <= 40 && load.client_transactions <= 40, "seed {seed}");
        assert!(load.strangers <= 5 && load.dialogs <= 12, "seed {seed}: {load:?}");
    }
    // Everybody falls silent; the application answers what it owes and ends what it has begun.
    for tx in &known.servers {
        let _ = solo.endpoint.respond(solo.now, *tx, Reply::new(486));
    }
    for tx in &known.clients {
        let _ = solo.endpoint.cancel(solo.now, *tx);
    }
    solo.drain();
    solo.pass(ms + 200_000);
    known.learn(&mut solo);
    for dialog in &known.dialogs {
        solo.endpoint.forget(*dialog);
    }
    let load = solo.endpoint.load();
    let transactions = (load.server_transactions, load.client_transactions, load.strangers);
    assert_eq!(transactions, (0, 0, 0), "seed {seed}: {load:?}");
    assert_eq!(load.dialogs, 0, "seed {seed}");
    assert_eq!(solo.endpoint.poll_timeout(), None, "seed {seed}");
}

#[test]
fn no_order_of_messages_and_commands_breaks_the_endpoint() {
    // More of them: SEEDS=1000. One of them: the number the failure names, in place of the range.
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(10);
    for seed in 0..seeds {
        story(seed, Transport::Udp);
        story(seed, Transport::Tcp);
    }
}

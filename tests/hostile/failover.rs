//! A carrier of two servers, the first of which fails: the call goes to the second, at once where that can be
//! known at once, and the next calls do not wait for the first again.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;

use crate::callee::{Callee, OWN, assert_ended, kind};
use crate::common::{Gateway, PEER, header, now};
use crate::names::{Names, Record};

/// The other server of the same carrier.
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// What is at once, on two cores that have other things to do.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(250);

/// A carrier's name with two servers, the first of them preferred.
pub(crate) fn zone(service: &str, first: SocketAddr, second: SocketAddr) -> Vec<(String, Record)> {
    let host = |name: &str, server: SocketAddr| {
        let SocketAddr::V4(server) = server else { panic!("IPv4 here") };
        (name.to_owned(), Record::Address(*server.ip()))
    };
    let srv = |priority, name: &str, server: SocketAddr| {
        (format!("{service}.carrier.test"), Record::Service(priority, server.port(), name.into()))
    };
    vec![
        srv(10, "first.carrier.test", first),
        srv(20, "second.carrier.test", second),
        host("first.carrier.test", first),
        host("second.carrier.test", second),
    ]
}

/// Two datagram servers of one carrier, and a gateway that calls out over it.
struct Pair {
    gateway: Gateway,
    first: Callee,
    second: Callee,
    agent: String,
    _names: Names,
}

impl Pair {
    fn new(settings: &[(&str, &str)]) -> Pair {
        let placeholder = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let (mut first, mut second) =
            (Callee::new(PEER, placeholder), Callee::new(SECOND, placeholder));
        let names = Names::start(zone("_sip._udp", first.phone.address, second.phone.address));
        let servers = names.setting();
        let mut all = vec![("sip.nameservers", &*servers)];
        all.extend(settings);
        let gateway = Gateway::empty(&all);
        (first.phone.gateway, second.phone.gateway) = (gateway.udp, gateway.udp);
        let agent = gateway.caller(OWN, "carrier.test", &json!({}));
        Pair { gateway, first, second, agent, _names: names }
    }

    /// The call comes to the second server within `limit`, and is held there as any other.
    fn assert_second_serves(mut self, id: &str, limit: Duration, first: impl Fn(&Callee, &str)) {
        self.serve_second(id, limit, first);
        let Pair { mut gateway, first, second, .. } = self;
        drop((first, second));
        gateway.assert_quiet();
    }

    fn serve_second(&mut self, id: &str, limit: Duration, first: impl Fn(&Callee, &str)) {
        let invite = self.first.expect("INVITE");
        let begun = now();
        first(&self.first, &invite);
        let turned = self.second.expect("INVITE");
        let took = now() - begun;
        assert!(took <= limit, "turned to the second server after {took:?}");
        self.second.accept(&turned);
        self.second.expect("ACK");
        self.gateway.await_status(id, "in_progress");
        self.gateway.hang_up(id);
        self.second.take_bye();
        assert_ended(&self.gateway.ended(id), "completed", "operator_hung_up", "operator");
        let rest = self.first.rest();
        assert!(rest.iter().all(|text| kind(text) != "BYE"), "{rest:#?}");
    }

    /// The next call goes to the second server at once, without a word to the first.
    fn assert_first_is_left_alone(self) {
        let id = self.gateway.place(OWN, &self.agent);
        let begun = now();
        let invite = self.second.expect("INVITE");
        let took = now() - begun;
        assert!(took <= AT_ONCE, "asked the second server after {took:?}");
        self.second.accept(&invite);
        self.second.expect("ACK");
        self.gateway.await_status(&id, "in_progress");
        self.gateway.hang_up(&id);
        self.second.take_bye();
        let call_id = header(&invite, "Call-ID");
        let rest = self.first.rest();
        assert!(rest.iter().all(|text| header(text, "Call-ID") != call_id), "{rest:#?}");
        finish(self.gateway);
    }
}

#[test]
fn a_server_that_is_out_of_order_is_left_for_the_next_at_once() {
    for (line, headers) in [
        ("503 Service Unavailable", ""),
        ("503 Service Unavailable", "Retry-After: 60\r\n"),
        ("500 Server Internal Error", ""),
        ("504 Server Time-out", ""),
    ] {
        let pair = Pair::new(&[]);
        let id = pair.gateway.place(OWN, &pair.agent);
        pair.assert_second_serves(&id, AT_ONCE, |first, invite| {
            first.answer(invite, line, headers, "");
            first.expect("ACK");
        });
    }
}

#[test]
fn a_silent_server_is_left_after_two_seconds() {
    let pair = Pair::new(&[]);
    let id = pair.gateway.place(OWN, &pair.agent);
    pair.assert_second_serves(&id, Duration::from_millis(2_200), |_, _| {});
}

#[test]
fn a_server_that_was_silent_is_not_waited_for_by_the_next_call() {
    let mut pair = Pair::new(&[]);
    let id = pair.gateway.place(OWN, &pair.agent);
    pair.serve_second(&id, Duration::from_millis(2_200), |_, _| {});
    pair.assert_first_is_left_alone();
}

#[test]
fn a_server_that_has_asked_for_a_rest_is_given_it() {
    let mut pair = Pair::new(&[]);
    let id = pair.gateway.place(OWN, &pair.agent);
    pair.serve_second(&id, AT_ONCE, |first, invite| {
        first.answer(invite, "503 Service Unavailable", "Retry-After: 60 (tired)\r\n", "");
        first.expect("ACK");
    });
    pair.assert_first_is_left_alone();
}

#[test]
fn a_server_whose_port_is_closed_is_left_for_the_next_at_once() {
    let Pair { gateway, first, second, agent, _names } = Pair::new(&[]);
    drop(first);
    let begun = now();
    let id = gateway.place(OWN, &agent);
    let turned = second.expect("INVITE");
    let took = now() - begun;
    assert!(took <= AT_ONCE, "turned to the second server after {took:?}");
    second.accept(&turned);
    second.expect("ACK");
    gateway.await_status(&id, "in_progress");
    gateway.hang_up(&id);
    second.take_bye();
    finish(gateway);
}

#[test]
fn a_server_that_says_no_more_than_100_is_left_and_its_late_answer_ended() {
    let pair = Pair::new(&[("sip.failover_seconds", "2")]);
    let id = pair.gateway.place(OWN, &pair.agent);
    let invite = pair.first.expect("INVITE");
    pair.first.answer(&invite, "100 Trying", "", "");
    let turned = pair.second.expect("INVITE");
    pair.first.expect("CANCEL");
    pair.second.accept(&turned);
    pair.second.expect("ACK");
    // The first has not seen the CANCEL: now there are two answers, and one must go.
    pair.first.accept(&invite);
    pair.first.expect("ACK");
    pair.first.take_bye();
    pair.gateway.await_status(&id, "in_progress");
    assert!(pair.second.rest().is_empty(), "the second answer lives");
    pair.gateway.hang_up(&id);
    pair.second.take_bye();
    assert_ended(&pair.gateway.ended(&id), "completed", "operator_hung_up", "operator");
    finish(pair.gateway);
}

#[test]
fn a_server_that_answers_after_it_was_left_is_acknowledged_and_hung_up() {
    let pair = Pair::new(&[("sip.target_timeout_ms", "300")]);
    let id = pair.gateway.place(OWN, &pair.agent);
    let invite = pair.first.expect("INVITE");
    let turned = pair.second.expect("INVITE");
    // Late, and before the second has said anything.
    pair.first.accept(&invite);
    pair.first.expect("ACK");
    pair.first.take_bye();
    pair.second.accept(&turned);
    pair.second.expect("ACK");
    pair.gateway.await_status(&id, "in_progress");
    pair.gateway.hang_up(&id);
    pair.second.take_bye();
    assert_eq!(pair.gateway.conversations().len(), 1);
    finish(pair.gateway);
}

pub(crate) fn finish(mut gateway: Gateway) {
    gateway.assert_quiet();
}

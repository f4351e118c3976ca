//! May this call start? The only place that mints [`Admitted`].
//!
//! A trunk is found, in this order, on the packet's source address and never on what a header
//! claims: the trunk named by the Request-URI's host or user; the dialled number's trunk; trunks
//! whose `allowed_addresses` hold the source; digest credentials. Then its rules are checked in
//! order and the first that fails is written down. Strangers learn nothing: what is refused to an
//! address that no trunk lists is refused in silence, unless the settings say otherwise.

use std::net::{IpAddr, SocketAddr};

use config::ids::{AgentId, AgentVersionId, OrganisationId, TrunkId};
use config::model::Answering;
use config::routing::{self, Unanswerable};
use config::snapshot::{AgentRoute, NumberRoute, Snapshot, TrunkRoute};

use super::number;

/// What is known of an INVITE before anything is believed.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Where the packet came from.
    pub source: SocketAddr,
    /// User part of the Request-URI, unescaped; a telephone number for `tel:`.
    pub request_user: &'a str,
    /// Host part of the Request-URI.
    pub request_host: &'a str,
    /// User part of the To URI, unescaped.
    pub to_user: &'a str,
    /// User part of the From URI, unescaped.
    pub from_user: &'a str,
    /// Max-Forwards, when present.
    pub max_forwards: Option<u8>,
    /// Whose call it is that has come back to us, when it is one of our own.
    pub looped: Option<OrganisationId>,
    /// True when the settings tell strangers that they are refused.
    pub answer_strangers: bool,
}

/// How the credentials of a request stand against one trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The request carries none for our realm.
    Absent,
    /// Right password, right nonce, first use.
    Good,
    /// Right form, but the nonce is too old or used up.
    Stale,
    /// Wrong user name or password.
    Bad,
    /// Credentials for another Request-URI (RFC 7616 §3.4.6).
    OtherUri,
}

/// Why an INVITE is refused: the first rule that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// No trunk lists the source, and nothing it dialled is open to everybody.
    SourceUnknown,
    /// The trunk of the number does not list the source.
    SourceNotAllowed,
    /// The trunk wants digest credentials and the right ones did not come.
    CredentialsWrong,
    /// The credentials were made for another Request-URI.
    CredentialsOtherUri,
    /// No number like the dialled one.
    NumberNotFound,
    /// No deployed agent with the dialled id.
    AgentNotFound,
    /// The number has no inbound agent.
    InboundSlotEmpty,
    /// The agent is switched off.
    AgentInactive,
    /// The slot names a version that is not there or not published.
    VersionUnavailable,
    /// Max-Forwards is used up.
    TooManyHops,
    /// The INVITE is one of ours that has come back.
    LoopDetected,
    /// The trunk's `max_concurrent_calls` are in use.
    TrunkFull,
    /// More calls per second than the trunk allows.
    TrunkRate,
    /// The gateway's own `max_calls` are in use.
    GatewayFull,
    /// Calls come faster than the gateway can set them up.
    Overloaded,
    /// The gateway is stopping.
    Draining,
    /// No free media ports.
    NoMediaPorts,
    /// The offer has no common ground with what we do or what the trunk demands.
    MediaIncompatible,
    /// The body is not SDP.
    BodyUnsupported,
    /// The caller accepts no answer that we can give.
    AnswerUnacceptable,
    /// The Request-URI has a scheme that is none of ours.
    UriUnsupported,
    /// The INVITE requires a SIP extension that we do not have.
    ExtensionRequired,
}

impl Rule {
    /// Every rule, for tables, metrics and tests.
    pub const ALL: [Rule; 22] = [
        Rule::SourceUnknown,
        Rule::SourceNotAllowed,
        Rule::CredentialsWrong,
        Rule::CredentialsOtherUri,
        Rule::NumberNotFound,
        Rule::AgentNotFound,
        Rule::InboundSlotEmpty,
        Rule::AgentInactive,
        Rule::VersionUnavailable,
        Rule::TooManyHops,
        Rule::LoopDetected,
        Rule::TrunkFull,
        Rule::TrunkRate,
        Rule::GatewayFull,
        Rule::Overloaded,
        Rule::Draining,
        Rule::NoMediaPorts,
        Rule::MediaIncompatible,
        Rule::BodyUnsupported,
        Rule::AnswerUnacceptable,
        Rule::UriUnsupported,
        Rule::ExtensionRequired,
    ];

    /// The one table: stable word, SIP status for sources that may know, sentence for the customer.
    #[must_use]
    #[rustfmt::skip]
    pub fn row(self) -> (&'static str, u16, &'static str) {
        match self {
            Rule::SourceUnknown      => ("source_unknown",       403, "No trunk lists the address the call came from in its allowed_addresses."),
            Rule::SourceNotAllowed   => ("source_not_allowed",   403, "The number's trunk does not list the address the call came from in its allowed_addresses."),
            Rule::CredentialsWrong   => ("credentials_wrong",    401, "The trunk demands digest credentials, and the user name or password is wrong."),
            Rule::CredentialsOtherUri => ("credentials_other_uri", 400, "The digest credentials are for another Request-URI: something on the way rewrote it."),
            Rule::NumberNotFound     => ("number_not_found",     404, "The dialled number is not registered on any trunk."),
            Rule::AgentNotFound      => ("agent_not_found",      404, "No agent with the dialled id is deployed as a SIP endpoint."),
            Rule::InboundSlotEmpty   => ("inbound_slot_empty",   480, "The number has no inbound agent: publish a version to it."),
            Rule::AgentInactive      => ("agent_inactive",       480, "The agent is switched off (active is false)."),
            Rule::VersionUnavailable => ("version_unavailable",  480, "The agent has no published version to answer with."),
            Rule::TooManyHops        => ("too_many_hops",        483, "Max-Forwards is used up: the call goes round in a loop."),
            Rule::LoopDetected       => ("loop_detected",        482, "A call that this gateway placed has come back to it: a carrier's address or an agent's URI leads here."),
            Rule::TrunkFull          => ("trunk_full",           503, "The trunk's max_concurrent_calls are in use."),
            Rule::TrunkRate          => ("trunk_rate",           503, "Calls come faster than the trunk's calls_per_second."),
            Rule::GatewayFull        => ("gateway_full",         503, "The gateway's own limit of calls is reached."),
            Rule::Overloaded         => ("overloaded",           503, "Calls come faster than the gateway can set them up."),
            Rule::Draining           => ("draining",             503, "The gateway is stopping and takes no new calls."),
            Rule::NoMediaPorts       => ("no_media_ports",       503, "All media ports are in use."),
            Rule::MediaIncompatible  => ("media_incompatible",   488, "The caller's offer and the trunk's rules have no media in common."),
            Rule::BodyUnsupported    => ("body_unsupported",     415, "The INVITE carries a body that is not SDP."),
            Rule::AnswerUnacceptable => ("answer_unacceptable",  406, "The caller accepts no SDP answer."),
            Rule::UriUnsupported     => ("uri_unsupported",      416, "The Request-URI is neither sip:, sips: nor tel:."),
            Rule::ExtensionRequired  => ("extension_required",   420, "The INVITE requires a SIP extension that is not supported (Require)."),
        }
    }

    /// Stable snake_case word.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.row().0
    }

    /// SIP status for a source that may learn it.
    #[must_use]
    pub fn sip_status(self) -> u16 {
        self.row().1
    }
}

/// One trunk that was looked at, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// The trunk.
    pub trunk_id: TrunkId,
    /// How it was found: `request_uri`, `number`, `address` or `credentials`.
    pub found_by: &'static str,
    /// `accepted`, or the word of the rule that failed.
    pub verdict: &'static str,
}

/// A refused call, as the customer will read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The first rule that failed.
    pub rule: Rule,
    /// The final response, or `None` for silence.
    pub status: Option<u16>,
    /// Whose call it would have been.
    pub organisation: Option<OrganisationId>,
    /// The trunks that were looked at.
    pub considered: Vec<Considered>,
    /// The dialled number after normalisation.
    pub called_number: Option<String>,
}

/// Proof that a call passed admission. Only [`decide`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::manual_non_exhaustive, reason = "nobody else in this crate may make one either")]
pub struct Admitted {
    /// Whose call it is.
    pub organisation: OrganisationId,
    /// The trunk it came in on; `None` for a call to an agent's own SIP endpoint.
    pub trunk: Option<TrunkId>,
    /// Who answers; `None` where the organisation's workflow chooses that.
    pub answering: Option<Answering>,
    /// The caller as the record names it: a number where it is one, else the user part as sent.
    pub caller: String,
    /// What was dialled: a number, or the agent's id.
    pub called: String,
    /// The number the call came in on, when one was dialled.
    pub number: Option<String>,
    _minted_here: (),
}

/// What to do with an INVITE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Connect it.
    Admitted(Admitted),
    /// Answer 401 with a fresh challenge; `stale` when only the nonce was old.
    Challenge {
        /// RFC 7616 §3.3 stale flag.
        stale: bool,
    },
    /// Refuse it, aloud or in silence.
    Refused(Refusal),
}

/// What the Request-URI names.
enum Dialled<'a> {
    Number(&'a NumberRoute),
    UnknownNumber,
    Agent(Option<&'a AgentRoute>),
}

/// Decides on the immutable snapshot; no database, no clock.
///
/// `prove` tells how the request's Authorization stands against a trunk's credentials; it is asked
/// at most once, and only for the trunk that would carry the call.
pub fn decide(
    snapshot: &Snapshot,
    facts: &Facts<'_>,
    prove: &mut dyn FnMut(&TrunkRoute) -> Proof,
) -> Verdict {
    let case = Case::open(snapshot, facts);
    if facts.max_forwards == Some(0) {
        return case.refuse(Rule::TooManyHops, None);
    }
    if facts.looped.is_some() {
        return case.refuse(Rule::LoopDetected, facts.looped);
    }
    match case.dialled() {
        Dialled::Number(route) => case.number(route, prove),
        Dialled::Agent(Some(agent)) => case.agent_endpoint(agent),
        Dialled::Agent(None) => case.unknown(Rule::AgentNotFound),
        Dialled::UnknownNumber => case.unknown(Rule::NumberNotFound),
    }
}

/// One decision in the making.
struct Case<'a> {
    snapshot: &'a Snapshot,
    facts: &'a Facts<'a>,
    called_number: Option<String>,
    named: Option<&'a TrunkRoute>,
    listed: Vec<&'a TrunkRoute>,
    /// True once the source may learn why it is refused.
    may_know: bool,
    considered: Vec<Considered>,
}

impl<'a> Case<'a> {
    fn open(snapshot: &'a Snapshot, facts: &'a Facts<'a>) -> Self {
        let named = trunk_named_by(snapshot, facts);
        // A Request-URI whose user is the trunk's name leaves the number in To (RFC 3261 §8.1.1.2).
        let user_is_trunk = named.is_some_and(|trunk| &*trunk.slug == facts.request_user);
        let written = if user_is_trunk { facts.to_user } else { facts.request_user };
        let listed = snapshot.trunks_allowing(source_ip(facts.source));
        Case {
            // What has come back to us went through nobody whom we did not call.
            may_know: facts.answer_strangers || !listed.is_empty() || facts.looped.is_some(),
            snapshot,
            facts,
            called_number: number::normalise(written),
            named,
            listed,
            considered: Vec::new(),
        }
    }

    fn dialled(&self) -> Dialled<'a> {
        if let Some(number) = &self.called_number {
            return match self.snapshot.number(number) {
                Some(route) => Dialled::Number(route),
                None => Dialled::UnknownNumber,
            };
        }
        match self.facts.request_user.parse::<AgentId>() {
            Ok(id) => Dialled::Agent(self.snapshot.agent(id).filter(|a| a.deployed_as_sip)),
            Err(_) => Dialled::UnknownNumber,
        }
    }

    /// A registered number was dialled: its trunk's rules decide.
    fn number(
        mut self,
        route: &'a NumberRoute,
        prove: &mut dyn FnMut(&TrunkRoute) -> Proof,
    ) -> Verdict {
        let Some(trunk) = self.snapshot.trunk(route.trunk_id) else {
            return self.unknown(Rule::NumberNotFound);
        };
        if let Some(named) = self.named.filter(|named| named.id != trunk.id) {
            // The URI names one trunk, the number belongs to another: never carried across.
            self.consider(named, "request_uri", Rule::NumberNotFound.code());
            return self.refuse_source(Rule::NumberNotFound, Some(named.organization_id));
        }
        let found_by = if self.named.is_some() { "request_uri" } else { "number" };
        if !trunk.admits(self.facts.source.ip()) {
            self.consider(trunk, found_by, Rule::SourceNotAllowed.code());
            return self.refuse_source(Rule::SourceNotAllowed, Some(trunk.organization_id));
        }
        if let Some(refused) = self.credentials(trunk, found_by, prove) {
            return refused;
        }
        self.may_know = true;
        let organisation = trunk.organization_id;
        let dialled = (Some(trunk), Some(route.number.to_string()));
        if self.snapshot.enabled_routing(organisation).is_some() {
            let called = route.number.to_string();
            return self.admit(organisation, dialled, (None, called));
        }
        let Some(version_id) = route.inbound_version else {
            self.consider(trunk, found_by, Rule::InboundSlotEmpty.code());
            return self.refuse(Rule::InboundSlotEmpty, Some(organisation));
        };
        match self.answering(version_id, organisation) {
            Ok(answering) => {
                let called = route.number.to_string();
                self.admit(organisation, dialled, (Some(answering), called))
            }
            Err(rule) => {
                self.consider(trunk, found_by, rule.code());
                self.refuse(rule, Some(organisation))
            }
        }
    }

    /// `None` when the trunk's credentials are in order or not asked for.
    fn credentials(
        &mut self,
        trunk: &'a TrunkRoute,
        found_by: &'static str,
        prove: &mut dyn FnMut(&TrunkRoute) -> Proof,
    ) -> Option<Verdict> {
        trunk.digest.as_ref()?;
        let proof = prove(trunk);
        match proof {
            Proof::Good => None,
            Proof::Absent => Some(Verdict::Challenge { stale: false }),
            Proof::Stale => Some(Verdict::Challenge { stale: true }),
            Proof::Bad | Proof::OtherUri => {
                let other_uri = proof == Proof::OtherUri;
                let rule =
                    if other_uri { Rule::CredentialsOtherUri } else { Rule::CredentialsWrong };
                self.consider(trunk, found_by, rule.code());
                let organisation = Some(trunk.organization_id);
                // 400 would tell a stranger that the number is there.
                let status = if other_uri && self.may_know { 400 } else { 401 };
                Some(self.refusal(rule, organisation, Some(status)))
            }
        }
    }

    /// The agent's own SIP endpoint was dialled: open to every source, and no carrier's trunk.
    fn agent_endpoint(mut self, agent: &'a AgentRoute) -> Verdict {
        let organisation = agent.organization_id;
        self.may_know = true;
        let version = agent.latest_published.ok_or(Rule::VersionUnavailable);
        let answering = version.and_then(|version| self.answering(version, organisation));
        match answering {
            Ok(answering) => {
                let called = agent.id.to_string();
                self.admit(organisation, (None, None), (Some(answering), called))
            }
            Err(rule) => self.refuse(rule, Some(organisation)),
        }
    }

    fn answering(
        &self,
        version: AgentVersionId,
        organisation: OrganisationId,
    ) -> Result<Answering, Rule> {
        match routing::answering(self.snapshot, organisation, version) {
            Ok((agent, version)) => Ok(Answering { agent: agent.id, version: version.id }),
            Err(Unanswerable::Inactive) => Err(Rule::AgentInactive),
            Err(Unanswerable::Unavailable) => Err(Rule::VersionUnavailable),
        }
    }

    fn admit(
        self,
        organisation: OrganisationId,
        (trunk, number): (Option<&TrunkRoute>, Option<String>),
        (answering, called): (Option<Answering>, String),
    ) -> Verdict {
        Verdict::Admitted(Admitted {
            organisation,
            trunk: trunk.map(|trunk| trunk.id),
            answering,
            caller: caller(self.facts.from_user),
            called,
            number,
            _minted_here: (),
        })
    }

    /// Nothing we serve was dialled: the trunks of the source say who may read about it.
    fn unknown(mut self, rule: Rule) -> Verdict {
        let listed = std::mem::take(&mut self.listed);
        let mut organisations: Vec<_> = listed.iter().map(|t| t.organization_id).collect();
        organisations.dedup();
        for trunk in &listed {
            self.consider(trunk, "address", rule.code());
        }
        if let Some(named) = self.named.filter(|named| named.admits(self.facts.source.ip())) {
            self.consider(named, "request_uri", rule.code());
            organisations = vec![named.organization_id];
        }
        let one = match organisations.as_slice() {
            [only] => Some(*only),
            _ => None,
        };
        self.listed = listed;
        let rule = if self.listed.is_empty() && one.is_none() { Rule::SourceUnknown } else { rule };
        self.refuse_source(rule, one)
    }

    /// Refuses a call that its source's address does not open. Where credentials could open a trunk,
    /// every stranger is challenged alike, so that numbers cannot be told apart.
    fn refuse_source(mut self, rule: Rule, organisation: Option<OrganisationId>) -> Verdict {
        if self.listed.is_empty() && self.snapshot.has_open_digest_trunk() {
            return self.refusal(rule, organisation, Some(401));
        }
        self.refuse(rule, organisation)
    }

    fn consider(&mut self, trunk: &TrunkRoute, found_by: &'static str, verdict: &'static str) {
        self.considered.push(Considered { trunk_id: trunk.id, found_by, verdict });
    }

    /// Refuses with the rule's status, or in silence when the source is a stranger.
    fn refuse(mut self, rule: Rule, organisation: Option<OrganisationId>) -> Verdict {
        let status = self.may_know.then(|| rule.sip_status());
        self.refusal(rule, organisation, status)
    }

    fn refusal(
        &mut self,
        rule: Rule,
        organisation: Option<OrganisationId>,
        status: Option<u16>,
    ) -> Verdict {
        Verdict::Refused(Refusal {
            rule,
            status,
            organisation,
            considered: std::mem::take(&mut self.considered),
            called_number: self.called_number.take(),
        })
    }
}

/// The trunk whose name stands in the Request-URI: first label of the host, or the user.
fn trunk_named_by<'a>(snapshot: &'a Snapshot, facts: &Facts<'_>) -> Option<&'a TrunkRoute> {
    let label = facts.request_host.split_once('.').map(|(label, _)| label);
    label
        .and_then(|label| snapshot.trunk_by_slug(label))
        .or_else(|| snapshot.trunk_by_slug(facts.request_user))
}

/// The source as trunks list it: an IPv4 address seen through an IPv6 socket is IPv4.
fn source_ip(source: SocketAddr) -> IpAddr {
    source.ip().to_canonical()
}

/// The caller as the record names it.
fn caller(from_user: &str) -> String {
    if from_user.is_empty() || from_user.eq_ignore_ascii_case("anonymous") {
        return "anonymous".to_owned();
    }
    number::normalise(from_user).unwrap_or_else(|| from_user.chars().take(128).collect())
}

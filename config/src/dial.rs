//! Which number a call out goes out from, and which agent talks: decided once, when it is asked for.
//!
//! | said | number |
//! |---|---|
//! | a number | exactly that one, if it is the organisation's or shared with it |
//! | an agent or a version | the oldest whose outbound slot holds the version |
//! | the same, and no slot holds it | any with a way out: an empty outbound slot first, then the oldest |
//!
//! A number that is `outbound_shareable` is shared with every organisation of its owner's tree, when it is
//! named: none is taken unasked, and the agent in its slot is its owner's alone.
//!
//! Pure: everything is read from one [`Snapshot`], so that number, trunk and agent are of one moment.
//! A number has a way out when its trunk has an outbound configuration. One that was meant (by its name
//! or its slot) and has none is refused, not silently replaced: callees would see another number.

use std::sync::Arc;

use crate::briefing::AgentWorkflows;
use crate::ids::{AgentId, AgentVersionId, OrganisationId, TrunkId};
use crate::model::{E164, Runtime};
use crate::snapshot::{AgentRoute, NumberRoute, Snapshot, VersionRoute};

/// Who is to talk.
#[derive(Debug, Clone, PartialEq)]
pub enum Speaker {
    /// Whoever the number's outbound slot holds.
    Slot,
    /// The latest published version of an agent.
    Agent(AgentId),
    /// The published version of an agent that has this number.
    Numbered(AgentId, u32),
    /// This published version.
    Version(AgentVersionId),
    /// An agent that exists for this call only.
    Inline(Box<InlineAgent>),
}

/// An agent that exists for one call.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InlineAgent {
    /// Where it runs; `None` is where its organisation's agents do that do not say.
    pub runtime: Option<Runtime>,
    /// What runs before and after the call.
    pub workflows: Arc<AgentWorkflows>,
}

/// What is known of a call that is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Who is to talk.
    pub speaker: Speaker,
    /// Which number it is to go out from.
    pub number: Option<E164>,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The number it goes out from.
    pub number: E164,
    /// Its trunk, which has an outbound configuration.
    pub trunk: TrunkId,
    /// Who talks; `None` for an agent that exists for this call only.
    pub agent: Option<AgentId>,
    /// Which version; `None` like the agent.
    pub version: Option<AgentVersionId>,
    /// Where it runs.
    pub runtime: Runtime,
    /// What runs before and after the call.
    pub workflows: Arc<AgentWorkflows>,
}

/// Why there is nothing to dial with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The organisation has no such agent.
    #[error("Agent not found")]
    UnknownAgent,
    /// There is no such published version; there may be a draft.
    #[error("Version is not published")]
    UnknownVersion,
    /// No version of the agent is published.
    #[error("Agent has no published version")]
    NothingPublished,
    /// The agent is switched off.
    #[error("Agent is not active")]
    Inactive,
    /// The number belongs to somebody else, or to nobody.
    #[error("agent_number is not a number of this organization")]
    ForeignNumber,
    /// Nobody was named, and the number's outbound slot is empty.
    #[error("agent_number has no agent in its outbound slot")]
    EmptySlot,
    /// The number that was meant has no way out.
    #[error("The number's trunk has no outbound_config")]
    NoWayOut,
    /// None of the organisation's numbers has a way out.
    #[error("No phone number with an outbound_config on its trunk")]
    NoNumber,
}

/// Decides with what a call goes out.
///
/// # Errors
/// When it cannot: see [`Refused`]. What belongs to another organisation is as unknown as what never
/// was.
pub fn choose(
    snapshot: &Snapshot,
    organisation: OrganisationId,
    wanted: &Wanted,
) -> Result<Choice, Refused> {
    let chooser = Chooser { snapshot, organisation };
    let named = chooser.named(&wanted.speaker)?;
    let route = match (&wanted.number, named) {
        (Some(number), _) => chooser.named_number(number)?,
        (None, Some(version)) => chooser.number_for(version)?,
        (None, None) => chooser.any_number()?,
    };
    let version = match (&wanted.speaker, named) {
        (Speaker::Inline(_), _) => None,
        (_, Some(version)) => Some(version),
        (_, None) => {
            // A borrowed number brings nobody else's agent along.
            let slot = route.outbound_version.filter(|_| route.organization_id == organisation);
            Some(chooser.version(slot.ok_or(Refused::EmptySlot)?)?)
        }
    };
    let (runtime, workflows) = match (version, &wanted.speaker) {
        (None, Speaker::Inline(agent)) => {
            let runtime = agent.runtime.clone();
            let runtime = runtime.unwrap_or_else(|| snapshot.default_runtime(organisation));
            (runtime, Arc::clone(&agent.workflows))
        }
        (None, _) => return Err(Refused::EmptySlot),
        (Some(version), _) => (snapshot.runtime(version), Arc::clone(&version.workflows)),
    };
    Ok(Choice {
        number: route.number.parse().map_err(|_| Refused::NoNumber)?,
        trunk: route.trunk_id,
        agent: version.map(|version| version.agent_id),
        version: version.map(|version| version.id),
        runtime,
        workflows,
    })
}

#[derive(Clone, Copy)]
struct Chooser<'a> {
    snapshot: &'a Snapshot,
    organisation: OrganisationId,
}

impl<'a> Chooser<'a> {
    /// The version that was named, if one was.
    fn named(self, speaker: &Speaker) -> Result<Option<&'a VersionRoute>, Refused> {
        let version = match *speaker {
            Speaker::Slot | Speaker::Inline(_) => return Ok(None),
            Speaker::Version(version) => self.version(version)?,
            Speaker::Agent(agent) => {
                let latest = self.agent(agent)?.latest_published;
                self.version(latest.ok_or(Refused::NothingPublished)?)?
            }
            Speaker::Numbered(agent, number) => {
                self.agent(agent)?;
                let version = self.snapshot.version_numbered(agent, number);
                self.version(version.ok_or(Refused::UnknownVersion)?.id)?
            }
        };
        Ok(Some(version))
    }

    fn agent(self, id: AgentId) -> Result<&'a AgentRoute, Refused> {
        let agent = self.snapshot.agent(id);
        agent.filter(|one| one.organization_id == self.organisation).ok_or(Refused::UnknownAgent)
    }

    /// A published version of an active agent.
    fn version(self, id: AgentVersionId) -> Result<&'a VersionRoute, Refused> {
        let version = self.snapshot.version(id).ok_or(Refused::UnknownVersion)?;
        let agent = self.agent(version.agent_id).map_err(|_| Refused::UnknownVersion)?;
        if agent.active { Ok(version) } else { Err(Refused::Inactive) }
    }

    fn has_way_out(self, route: &NumberRoute) -> bool {
        self.snapshot.trunk(route.trunk_id).is_some_and(|trunk| trunk.has_outbound())
    }

    /// The number that was named.
    fn named_number(self, number: &E164) -> Result<&'a NumberRoute, Refused> {
        let route = self.snapshot.number(number.as_str());
        let route = route.filter(|route| self.may_show(route));
        let route = route.ok_or(Refused::ForeignNumber)?;
        if self.has_way_out(route) { Ok(route) } else { Err(Refused::NoWayOut) }
    }

    /// Whether the organisation may call from a number.
    fn may_show(self, route: &NumberRoute) -> bool {
        let owner = route.organization_id;
        let is_shared =
            || route.outbound_shareable && self.snapshot.are_related(owner, self.organisation);
        owner == self.organisation || is_shared()
    }

    /// The number whose outbound slot holds the version, or any.
    fn number_for(self, version: &VersionRoute) -> Result<&'a NumberRoute, Refused> {
        let holds = |route: &&NumberRoute| route.outbound_version == Some(version.id);
        let mut holding = self.snapshot.numbers_of(self.organisation).filter(holds).peekable();
        if holding.peek().is_none() {
            return self.any_number();
        }
        holding.find(|route| self.has_way_out(route)).ok_or(Refused::NoWayOut)
    }

    fn any_number(self) -> Result<&'a NumberRoute, Refused> {
        let all = self.snapshot.numbers_of(self.organisation);
        let out = all.filter(|route| self.has_way_out(route));
        // Of equals the first, which is the oldest, is taken.
        out.min_by_key(|route| route.outbound_version.is_some()).ok_or(Refused::NoNumber)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::MediaEncryption;
    use crate::secret::Secret;
    use crate::snapshot::{OrganisationRoute, OutboundRoute, Patch, TrunkRoute};

    /// One organisation with an agent of three published versions; numbers come on top.
    struct House {
        patch: Patch,
        organisation: OrganisationId,
        agent: AgentId,
        versions: Vec<AgentVersionId>,
        dialling: TrunkId,
        inbound_only: TrunkId,
    }

    fn trunk(organisation: OrganisationId, dials: bool) -> TrunkRoute {
        let outbound = dials.then(|| OutboundRoute {
            config: serde_json::from_value(serde_json::json!({
                "address": "carrier.example.com", "auth_username": "u" }))
            .unwrap(),
            password: Secret::from("p"),
        });
        TrunkRoute {
            id: TrunkId::random(),
            organization_id: organisation,
            name: "t".into(),
            slug: TrunkId::random().to_string().into(),
            managed: false,
            noise_cancellation: false,
            encryption: MediaEncryption::Disable,
            allowed: None,
            digest: None,
            max_concurrent_calls: None,
            calls_per_second: None,
            outbound,
        }
    }

    impl House {
        fn new() -> Self {
            let organisation = OrganisationId::random();
            let mut patch = Patch::default();
            let [dialling, inbound_only] = [true, false].map(|dials| {
                let trunk = trunk(organisation, dials);
                let id = trunk.id;
                patch.trunks.push((id, Some(trunk)));
                id
            });
            let mut house = Self {
                patch,
                organisation,
                agent: AgentId::random(),
                versions: Vec::new(),
                dialling,
                inbound_only,
            };
            house.versions = house.agent(house.agent, organisation, true, &[1, 2, 3]);
            house
        }

        fn agent(
            &mut self,
            id: AgentId,
            organization_id: OrganisationId,
            active: bool,
            published: &[u32],
        ) -> Vec<AgentVersionId> {
            let agent = AgentRoute {
                id,
                organization_id,
                name: "a".into(),
                active,
                deployed_as_sip: false,
                latest_published: None,
            };
            self.patch.agents.push((id, Some(agent)));
            let versions = published.iter().map(|version| VersionRoute {
                id: AgentVersionId::random(),
                agent_id: id,
                version: *version,
                runtime: None,
                workflows: Arc::default(),
                published: true,
            });
            let versions: Vec<_> = versions.collect();
            let ids = versions.iter().map(|version| version.id).collect();
            self.patch.versions.extend(versions);
            ids
        }

        /// A number with its place in time.
        fn number(&mut self, number: &str, age: i64, trunk: TrunkId, slot: Option<usize>) {
            let route = NumberRoute {
                number: number.into(),
                organization_id: self.organisation,
                trunk_id: trunk,
                inbound_version: None,
                outbound_version: slot.and_then(|slot| self.versions.get(slot).copied()),
                outbound_shareable: false,
                created_at: Timestamp::from_micros(-age),
            };
            self.patch.numbers.push((number.into(), Some(route)));
        }

        fn choose(self, speaker: Speaker, number: Option<&str>) -> Result<Choice, Refused> {
            let snapshot = Snapshot::default().patched(self.patch);
            let number = number.map(|number| number.parse().unwrap());
            choose(&snapshot, self.organisation, &Wanted { speaker, number })
        }
    }

    #[test]
    fn a_number_that_is_named_is_taken_and_its_slot_talks() {
        let mut house = House::new();
        let (agent, version) = (house.agent, house.versions[1]);
        house.number("+15550001", 9, house.dialling, Some(0));
        house.number("+15550002", 1, house.dialling, Some(1));
        let choice = house.choose(Speaker::Slot, Some("+15550002")).unwrap();
        assert_eq!(choice.number.as_str(), "+15550002");
        assert_eq!((choice.agent, choice.version), (Some(agent), Some(version)));
    }

    #[test]
    fn a_number_that_is_named_is_taken_whoever_talks() {
        let mut house = House::new();
        house.number("+15550001", 9, house.dialling, Some(0));
        let version = house.versions[2];
        let choice = house.choose(Speaker::Version(version), Some("+15550001")).unwrap();
        assert_eq!(choice.version, Some(version));

        let mut house = House::new();
        house.number("+15550001", 9, house.dialling, None);
        let inline = Speaker::Inline(Box::default());
        let choice = house.choose(inline, Some("+15550001")).unwrap();
        assert_eq!((choice.agent, choice.version), (None, None));
        assert_eq!(choice.runtime, Runtime::default());
    }

    #[test]
    fn an_agent_is_its_latest_published_version_unless_one_is_named() {
        for (wanted, index) in [(None, 2), (Some(2), 1)] {
            let mut house = House::new();
            house.number("+15550001", 1, house.dialling, Some(0));
            house.number("+15550002", 1, house.dialling, Some(1));
            house.number("+15550003", 1, house.dialling, Some(2));
            let (agent, version) = (house.agent, house.versions[index]);
            let speaker = match wanted {
                Some(number) => Speaker::Numbered(agent, number),
                None => Speaker::Agent(agent),
            };
            let choice = house.choose(speaker, None).unwrap();
            assert_eq!(choice.version, Some(version));
            assert_eq!(choice.number.as_str(), ["+15550001", "+15550002", "+15550003"][index]);
        }
    }

    #[test]
    fn of_several_numbers_the_oldest_with_a_way_out_is_taken() {
        let mut house = House::new();
        house.number("+15550001", 1, house.dialling, Some(0));
        house.number("+15550002", 5, house.dialling, Some(0));
        house.number("+15550003", 9, house.inbound_only, Some(0));
        let version = house.versions[0];
        let choice = house.choose(Speaker::Version(version), None).unwrap();
        assert_eq!(choice.number.as_str(), "+15550002");
    }

    #[test]
    fn without_a_slot_any_number_will_do_and_an_empty_slot_goes_first() {
        let mut house = House::new();
        house.number("+15550001", 9, house.dialling, Some(0));
        house.number("+15550002", 8, house.inbound_only, None);
        house.number("+15550003", 2, house.dialling, None);
        house.number("+15550004", 5, house.dialling, None);
        let agent = house.agent;
        let choice = house.choose(Speaker::Agent(agent), None).unwrap();
        assert_eq!(choice.number.as_str(), "+15550004");

        let mut house = House::new();
        house.number("+15550001", 9, house.dialling, Some(0));
        house.number("+15550002", 8, house.dialling, Some(1));
        let agent = house.agent;
        let choice = house.choose(Speaker::Agent(agent), None).unwrap();
        assert_eq!(choice.number.as_str(), "+15550001");
    }

    #[test]
    fn a_number_that_is_meant_and_has_no_way_out_is_not_replaced() {
        for (speaker, number) in [(true, None), (false, Some("+15550001"))] {
            let mut house = House::new();
            house.number("+15550001", 9, house.inbound_only, Some(2));
            house.number("+15550002", 8, house.dialling, None);
            let speaker = if speaker { Speaker::Agent(house.agent) } else { Speaker::Slot };
            assert_eq!(house.choose(speaker, number), Err(Refused::NoWayOut));
        }
        let house = House::new();
        let agent = house.agent;
        assert_eq!(house.choose(Speaker::Agent(agent), None), Err(Refused::NoNumber));
    }

    /// What an organisation may do with a number of another: both have the parent that is given.
    fn borrowed(
        shareable: bool,
        parents: [Option<OrganisationId>; 2],
        agent: bool,
    ) -> Result<Choice, Refused> {
        let mut house = House::new();
        let (lender, borrower) = (house.organisation, OrganisationId::random());
        house.number("+15550001", 9, house.dialling, Some(0));
        for (_, number) in &mut house.patch.numbers {
            number.as_mut().unwrap().outbound_shareable = shareable;
        }
        let roots = parents.iter().flatten().map(|root| (*root, None));
        let all = [(lender, parents[0]), (borrower, parents[1])].into_iter().chain(roots);
        for (id, parent_id) in all.collect::<Vec<_>>() {
            let route = OrganisationRoute {
                id,
                parent_id,
                name: "o".into(),
                concurrency_limit: None,
                runtime: None,
            };
            house.patch.organisations.push((id, Some(route)));
        }
        let own = AgentId::random();
        house.agent(own, borrower, true, &[1]);
        let snapshot = Snapshot::default().patched(house.patch);
        let speaker = if agent { Speaker::Agent(own) } else { Speaker::Slot };
        let number = Some("+15550001".parse().unwrap());
        choose(&snapshot, borrower, &Wanted { speaker, number })
    }

    #[test]
    fn a_shareable_number_is_lent_within_its_owners_tree() {
        let root = Some(OrganisationId::random());
        let choice = borrowed(true, [root, root], true).unwrap();
        assert_eq!(choice.number.as_str(), "+15550001");
        assert!(choice.agent.is_some());
        assert_eq!(borrowed(false, [root, root], true), Err(Refused::ForeignNumber));
        for other in [None, Some(OrganisationId::random())] {
            assert_eq!(borrowed(true, [root, other], true), Err(Refused::ForeignNumber));
        }
        assert_eq!(borrowed(true, [None, None], true), Err(Refused::ForeignNumber));
    }

    #[test]
    fn a_borrowed_number_brings_no_agent_along() {
        let root = Some(OrganisationId::random());
        assert_eq!(borrowed(true, [root, root], false), Err(Refused::EmptySlot));
    }

    #[test]
    fn no_number_is_borrowed_unasked() {
        let mut house = House::new();
        let (lender, root) = (OrganisationId::random(), OrganisationId::random());
        house.number("+15550001", 9, house.dialling, None);
        let (_, number) = house.patch.numbers.last_mut().unwrap();
        let number = number.as_mut().unwrap();
        (number.organization_id, number.outbound_shareable) = (lender, true);
        for (id, parent_id) in
            [(house.organisation, Some(root)), (lender, Some(root)), (root, None)]
        {
            let route = OrganisationRoute {
                id,
                parent_id,
                name: "o".into(),
                concurrency_limit: None,
                runtime: None,
            };
            house.patch.organisations.push((id, Some(route)));
        }
        let agent = house.agent;
        assert_eq!(house.choose(Speaker::Agent(agent), None), Err(Refused::NoNumber));
    }

    #[test]
    fn what_cannot_talk_is_told_apart() {
        let refused = |prepare: fn(&mut House) -> Speaker, number| {
            let mut house = House::new();
            house.number("+15550001", 9, house.dialling, None);
            let speaker = prepare(&mut house);
            house.choose(speaker, number).unwrap_err()
        };
        assert_eq!(refused(|_| Speaker::Slot, Some("+15550001")), Refused::EmptySlot);
        assert_eq!(refused(|_| Speaker::Slot, Some("+15559999")), Refused::ForeignNumber);
        let unknown = |_: &mut House| Speaker::Agent(AgentId::random());
        assert_eq!(refused(unknown, None), Refused::UnknownAgent);
        let unknown = |_: &mut House| Speaker::Version(AgentVersionId::random());
        assert_eq!(refused(unknown, None), Refused::UnknownVersion);
        let draft = |house: &mut House| Speaker::Numbered(house.agent, 4);
        assert_eq!(refused(draft, None), Refused::UnknownVersion);
        let fresh = |house: &mut House| {
            let agent = AgentId::random();
            house.agent(agent, house.organisation, true, &[]);
            Speaker::Agent(agent)
        };
        assert_eq!(refused(fresh, None), Refused::NothingPublished);
        let off = |house: &mut House| {
            let agent = AgentId::random();
            house.agent(agent, house.organisation, false, &[1]);
            Speaker::Agent(agent)
        };
        assert_eq!(refused(off, Some("+15550001")), Refused::Inactive);
    }

    #[test]
    fn what_belongs_to_another_organisation_is_unknown() {
        let foreign = |house: &mut House| {
            let agent = AgentId::random();
            let versions = house.agent(agent, OrganisationId::random(), true, &[1]);
            (agent, versions[0])
        };
        let mut house = House::new();
        let (agent, _) = foreign(&mut house);
        assert_eq!(house.choose(Speaker::Agent(agent), None), Err(Refused::UnknownAgent));
        let mut house = House::new();
        let (agent, _) = foreign(&mut house);
        assert_eq!(house.choose(Speaker::Numbered(agent, 1), None), Err(Refused::UnknownAgent));
        let mut house = House::new();
        let (_, version) = foreign(&mut house);
        assert_eq!(house.choose(Speaker::Version(version), None), Err(Refused::UnknownVersion));
        let mut house = House::new();
        house.number("+15550001", 9, house.dialling, Some(0));
        house.organisation = OrganisationId::random();
        assert_eq!(house.choose(Speaker::Slot, Some("+15550001")), Err(Refused::ForeignNumber));
    }
}

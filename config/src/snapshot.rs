//! What calls read instead of the database: everything that decides about a call, in memory.
//!
//! A [`Snapshot`] never changes. A write that matters to calls makes the next one and swaps it whole,
//! so that a call sees either all of a change or nothing of it, and waits for neither disk nor lock.
//! Every question is a hash look-up; which trunks admit an address is one look-up for each prefix
//! length in use. The next snapshot shares with the present one all but the parts in which something
//! changed, so that a write costs the same among a hundred numbers and a hundred thousand.

mod shards;
mod tables;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::briefing::AgentWorkflows;
use crate::clock::Timestamp;
use crate::ids::{AgentId, AgentVersionId, OrganisationId, TrunkId, WorkflowId};
use crate::model::{MediaEncryption, OutboundConfig, Runtime};
use crate::secret::Secret;
use crate::workflows::Definition;
use shards::Shards;
use tables::{AgentTable, NumberTable, TrunkTable};

/// Generations of organisations that are followed: a tree is written without circles, and should
/// there be one, it relates nobody.
const MOST_ANCESTORS: usize = 64;

/// A phone number and where its calls go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberRoute {
    /// The number in E.164 form.
    pub number: Box<str>,
    /// Its owner.
    pub organization_id: OrganisationId,
    /// The trunk that carries it.
    pub trunk_id: TrunkId,
    /// The version that answers calls to it.
    pub inbound_version: Option<AgentVersionId>,
    /// The version that dials from it.
    pub outbound_version: Option<AgentVersionId>,
    /// Whether other agents may show it as their number.
    pub outbound_shareable: bool,
    /// When it was registered; unique among numbers.
    pub created_at: Timestamp,
}

/// Digest credentials, unsealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestUser {
    /// The user, unique over all trunks.
    pub username: Box<str>,
    /// The password.
    pub password: Secret<String>,
}

/// How calls go out over a trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundRoute {
    /// The configuration, without the password.
    pub config: OutboundConfig,
    /// The password, unsealed.
    pub password: Secret<String>,
}

/// A trunk, as calls need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkRoute {
    /// Its id.
    pub id: TrunkId,
    /// Its owner.
    pub organization_id: OrganisationId,
    /// Its name.
    pub name: Box<str>,
    /// What names it in a Request-URI.
    pub slug: Box<str>,
    /// Whether the platform runs it.
    pub managed: bool,
    /// Noise suppression on the caller's audio.
    pub noise_cancellation: bool,
    /// Whether the audio is encrypted.
    pub encryption: MediaEncryption,
    /// Who may call; `None` is everyone.
    pub allowed: Option<Vec<IpNet>>,
    /// The credentials callers must show, if they must.
    pub digest: Option<DigestUser>,
    /// Most calls at a time.
    pub max_concurrent_calls: Option<u32>,
    /// Most new calls in any second.
    pub calls_per_second: Option<u32>,
    /// How calls go out, if they do.
    pub outbound: Option<OutboundRoute>,
}

impl TrunkRoute {
    /// Whether calls can go out over it.
    #[must_use]
    pub const fn has_outbound(&self) -> bool {
        self.outbound.is_some()
    }

    /// Whether a source address may call: always, if the trunk names no addresses.
    #[must_use]
    pub fn admits(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.allowed.as_ref().is_none_or(|list| list.iter().any(|net| net.contains(&source)))
    }
}

/// An agent, as calls need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRoute {
    /// Its id.
    pub id: AgentId,
    /// Its owner.
    pub organization_id: OrganisationId,
    /// Its name.
    pub name: Box<str>,
    /// Whether it takes calls.
    pub active: bool,
    /// Whether it answers at its SIP URI.
    pub deployed_as_sip: bool,
    /// What answers there: the highest published version.
    pub latest_published: Option<AgentVersionId>,
}

/// A published version, as calls need it.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionRoute {
    /// Its id.
    pub id: AgentVersionId,
    /// Its agent.
    pub agent_id: AgentId,
    /// Its number within the agent.
    pub version: u32,
    /// Where its conversations run, if its config says; see [`Snapshot::runtime`].
    pub runtime: Option<Runtime>,
    /// What runs before and after its conversations.
    pub workflows: Arc<AgentWorkflows>,
    /// Whether it is published; drafts are not in a snapshot.
    pub published: bool,
}

/// An organisation, as calls need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrganisationRoute {
    /// Its id.
    pub id: OrganisationId,
    /// The organisation it is a part of; `None` at the root of a tree.
    pub parent_id: Option<OrganisationId>,
    /// Its name.
    pub name: Box<str>,
    /// Most calls out at a time; `None` is the node's setting.
    pub concurrency_limit: Option<u32>,
    /// Where conversations run of agents whose configs do not say; `None` is the built-in agent.
    pub runtime: Option<Runtime>,
}

/// Who answers when a routing workflow names nobody who can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fallback {
    /// The agent.
    pub agent: AgentId,
    /// The number of its version; `None` is the latest published.
    pub version: Option<u32>,
}

/// The inbound routing of an organisation, as calls need it.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingRoute {
    /// The workflow that chooses the agent, or why the stored one does not read.
    pub workflow: Result<Arc<Definition>, String>,
    /// Who answers without it.
    pub fallback: Option<Fallback>,
    /// Whether it runs.
    pub enabled: bool,
}

/// Everything that decides about a call, at one moment.
///
/// Its parts are shared with the snapshots before and after it, but for what changed.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    organisations: Arc<Shards<OrganisationId, OrganisationRoute>>,
    numbers: Arc<NumberTable>,
    trunks: Arc<TrunkTable>,
    agents: Arc<AgentTable>,
    routings: Arc<Shards<OrganisationId, Arc<RoutingRoute>>>,
}

/// What makes the next snapshot from the present one: rows by key, `None` for those that are gone.
#[derive(Debug, Default)]
pub(crate) struct Patch {
    pub(crate) organisations: Vec<(OrganisationId, Option<OrganisationRoute>)>,
    pub(crate) numbers: Vec<(Box<str>, Option<NumberRoute>)>,
    pub(crate) trunks: Vec<(TrunkId, Option<TrunkRoute>)>,
    pub(crate) agents: Vec<(AgentId, Option<AgentRoute>)>,
    /// All published versions of those agents.
    pub(crate) versions: Vec<VersionRoute>,
    pub(crate) routings: Vec<(OrganisationId, Option<RoutingRoute>)>,
}

impl Snapshot {
    /// The next snapshot.
    pub(crate) fn patched(&self, patch: Patch) -> Self {
        let mut next = self.clone();
        if !patch.organisations.is_empty() {
            let organisations = Arc::make_mut(&mut next.organisations);
            for (id, row) in patch.organisations {
                organisations.set(id, row);
            }
        }
        if !patch.numbers.is_empty() {
            Arc::make_mut(&mut next.numbers).patch(patch.numbers);
        }
        if !patch.trunks.is_empty() {
            Arc::make_mut(&mut next.trunks).patch(patch.trunks);
        }
        if !patch.agents.is_empty() {
            Arc::make_mut(&mut next.agents).patch(patch.agents, patch.versions);
        }
        if !patch.routings.is_empty() {
            let routings = Arc::make_mut(&mut next.routings);
            for (organisation, row) in patch.routings {
                routings.set(organisation, row.map(Arc::new));
            }
        }
        next
    }

    /// The route of a number in E.164 form.
    #[must_use]
    pub fn number(&self, e164: &str) -> Option<&NumberRoute> {
        self.numbers.by_number.get(e164).map(Arc::as_ref)
    }

    /// The numbers of an organisation, oldest first.
    pub fn numbers_of(&self, organisation: OrganisationId) -> impl Iterator<Item = &NumberRoute> {
        let list = self.numbers.by_organisation.get(&organisation);
        list.into_iter().flat_map(|list| list.iter())
    }

    /// A trunk.
    #[must_use]
    pub fn trunk(&self, id: TrunkId) -> Option<&TrunkRoute> {
        self.trunks.by_id.get(&id).map(Arc::as_ref)
    }

    /// The trunks that are to be registered with their carriers.
    pub fn registering(&self) -> impl Iterator<Item = &TrunkRoute> {
        self.trunks.registering.iter().filter_map(|id| self.trunk(*id))
    }

    /// The trunk that a Request-URI names. Slugs are lower case, as host names compare.
    #[must_use]
    pub fn trunk_by_slug(&self, slug: &str) -> Option<&TrunkRoute> {
        self.trunk(*self.trunks.slugs.get(slug)?)
    }

    /// The trunks that name this source address among those they allow, the narrowest prefix first.
    /// Trunks open to everyone are not among them.
    #[must_use]
    pub fn trunks_allowing(&self, source: IpAddr) -> Vec<&TrunkRoute> {
        let mut found = Vec::new();
        for id in self.trunks.addresses.lookup(source.to_canonical()) {
            if !found.contains(&id) {
                found.push(id);
            }
        }
        found.into_iter().filter_map(|id| self.trunk(id)).collect()
    }

    /// Whether any trunk that asks for credentials takes calls from everywhere: only then is it any
    /// use to challenge a stranger.
    #[must_use]
    pub fn has_open_digest_trunk(&self) -> bool {
        self.trunks.open_digest_trunks > 0
    }

    /// The trunks with these digest credentials: at most one, since writing a second is refused.
    #[must_use]
    pub fn digest_user(&self, username: &str) -> Vec<&TrunkRoute> {
        let ids = self.trunks.digest_users.get(username).map(Vec::as_slice).unwrap_or_default();
        ids.iter().filter_map(|id| self.trunk(*id)).collect()
    }

    /// An agent.
    #[must_use]
    pub fn agent(&self, id: AgentId) -> Option<&AgentRoute> {
        self.agents.agents.get(&id).map(|entry| &entry.route)
    }

    /// A published version.
    #[must_use]
    pub fn version(&self, id: AgentVersionId) -> Option<&VersionRoute> {
        self.agents.versions.get(&id).map(Arc::as_ref)
    }

    /// Where a version's conversations run: where its config says, else where its organisation does, else
    /// inside the gateway.
    #[must_use]
    pub fn runtime(&self, version: &VersionRoute) -> Runtime {
        let default = || {
            let agent = self.agent(version.agent_id)?;
            Some(self.default_runtime(agent.organization_id))
        };
        version.runtime.clone().or_else(default).unwrap_or_default()
    }

    /// Where the conversations run of an organisation's agents whose configs do not say.
    #[must_use]
    pub fn default_runtime(&self, organisation: OrganisationId) -> Runtime {
        let said = self.organisation(organisation).and_then(|one| one.runtime.clone());
        said.unwrap_or_default()
    }

    /// The published version of an agent that has this number.
    #[must_use]
    pub fn version_numbered(&self, agent: AgentId, number: u32) -> Option<&VersionRoute> {
        self.version(*self.agents.agents.get(&agent)?.numbered.get(&number)?)
    }

    /// The agents of which a published version names one of these stored workflows. Looks at all there
    /// are: for writes, not for calls.
    pub(crate) fn agents_naming(&self, workflows: &[WorkflowId]) -> Vec<AgentId> {
        let ids: Vec<String> = workflows.iter().map(ToString::to_string).collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let names_one = |version: &&Arc<VersionRoute>| {
            version.workflows.stored().is_some_and(|stored| ids.contains(&stored.id))
        };
        self.agents.versions.values().filter(names_one).map(|version| version.agent_id).collect()
    }

    /// An organisation.
    #[must_use]
    pub fn organisation(&self, id: OrganisationId) -> Option<&OrganisationRoute> {
        self.organisations.get(&id)
    }

    /// Whether two organisations are parts of one whole: the same, or with a common ancestor.
    #[must_use]
    pub fn are_related(&self, one: OrganisationId, other: OrganisationId) -> bool {
        one == other || self.root(one).is_some_and(|root| self.root(other) == Some(root))
    }

    /// The organisation that another is a part of in the end.
    fn root(&self, id: OrganisationId) -> Option<OrganisationId> {
        let mut at = self.organisation(id)?;
        for _ in 0..MOST_ANCESTORS {
            match at.parent_id {
                Some(parent) => at = self.organisation(parent)?,
                None => return Some(at.id),
            }
        }
        None
    }

    /// The inbound routing of an organisation, enabled or not.
    #[must_use]
    pub fn routing(&self, organisation: OrganisationId) -> Option<&Arc<RoutingRoute>> {
        self.routings.get(&organisation)
    }

    /// The inbound routing that decides about an organisation's calls: none unless it is enabled.
    #[must_use]
    pub fn enabled_routing(&self, organisation: OrganisationId) -> Option<&Arc<RoutingRoute>> {
        self.routing(organisation).filter(|routing| routing.enabled)
    }

    /// How many numbers and trunks it holds, for the metrics.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.numbers.by_number.len(), self.trunks.by_id.len())
    }
}

/// Where the present snapshot is to be had. Clones see the same.
#[derive(Debug, Clone, Default)]
pub struct SnapshotHandle(Arc<ArcSwap<Snapshot>>);

impl SnapshotHandle {
    /// The present snapshot; it stays as it is for as long as it is held.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    pub(crate) fn swap(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trunk(name: &str, allowed: &[&str]) -> TrunkRoute {
        TrunkRoute {
            id: TrunkId::random(),
            organization_id: OrganisationId::random(),
            name: name.into(),
            slug: name.into(),
            managed: false,
            noise_cancellation: false,
            encryption: MediaEncryption::Disable,
            allowed: (!allowed.is_empty())
                .then(|| allowed.iter().map(|net| net.parse().unwrap()).collect()),
            digest: None,
            max_concurrent_calls: None,
            calls_per_second: None,
            outbound: None,
        }
    }

    fn snapshot(trunks: Vec<TrunkRoute>) -> Snapshot {
        let trunks = trunks.into_iter().map(|trunk| (trunk.id, Some(trunk))).collect();
        Snapshot::default().patched(Patch { trunks, ..Patch::default() })
    }

    fn allowing(snapshot: &Snapshot, source: &str) -> Vec<String> {
        let found = snapshot.trunks_allowing(source.parse().unwrap());
        found.iter().map(|trunk| trunk.name.to_string()).collect()
    }

    #[test]
    fn the_narrowest_prefix_comes_first_and_open_trunks_not_at_all() {
        let snapshot = snapshot(vec![
            trunk("open", &[]),
            trunk("wide", &["10.0.0.0/8", "2001:db8::/32"]),
            trunk("narrow", &["10.1.2.0/24", "10.1.2.3/32"]),
            trunk("other", &["192.0.2.0/24"]),
        ]);
        assert_eq!(allowing(&snapshot, "10.1.2.3"), ["narrow", "wide"]);
        assert_eq!(allowing(&snapshot, "10.9.9.9"), ["wide"]);
        assert_eq!(allowing(&snapshot, "2001:db8::1"), ["wide"]);
        assert_eq!(allowing(&snapshot, "::ffff:192.0.2.9"), ["other"]);
        assert!(allowing(&snapshot, "203.0.113.1").is_empty());
    }

    #[test]
    fn a_trunk_admits_what_it_names_or_everyone() {
        let (open, closed) = (trunk("open", &[]), trunk("closed", &["192.0.2.0/24"]));
        assert!(open.admits("203.0.113.1".parse().unwrap()));
        assert!(closed.admits("::ffff:192.0.2.1".parse().unwrap()));
        assert!(!closed.admits("203.0.113.1".parse().unwrap()));
    }

    #[test]
    fn a_stranger_is_worth_a_challenge_only_if_a_digest_trunk_is_open() {
        let digest =
            |name: &str| Some(DigestUser { username: name.into(), password: Secret::from("x") });
        let closed = TrunkRoute { digest: digest("a"), ..trunk("a", &["192.0.2.1/32"]) };
        let open = TrunkRoute { digest: digest("b"), ..trunk("b", &[]) };
        assert!(!snapshot(vec![closed.clone(), trunk("c", &[])]).has_open_digest_trunk());
        let both = snapshot(vec![closed, open]);
        assert!(both.has_open_digest_trunk());
        assert_eq!(both.digest_user("b").len(), 1);
        assert!(both.digest_user("c").is_empty());
    }

    #[test]
    fn the_latest_published_version_is_the_highest() {
        let agent = AgentRoute {
            id: AgentId::random(),
            organization_id: OrganisationId::random(),
            name: "a".into(),
            active: true,
            deployed_as_sip: false,
            latest_published: None,
        };
        let version = |number| VersionRoute {
            id: AgentVersionId::random(),
            agent_id: agent.id,
            version: number,
            runtime: None,
            workflows: Arc::default(),
            published: true,
        };
        let versions = vec![version(2), version(10), version(9)];
        let highest = versions[1].id;
        let agents = vec![(agent.id, Some(agent.clone()))];
        let patch = Patch { agents, versions, ..Patch::default() };
        let snapshot = Snapshot::default().patched(patch);
        assert_eq!(snapshot.agent(agent.id).unwrap().latest_published, Some(highest));
    }

    #[test]
    fn a_snapshot_that_is_held_does_not_change() {
        let handle = SnapshotHandle::default();
        let held = handle.load();
        handle.swap(snapshot(vec![trunk("t", &[])]));
        assert!(held.trunk_by_slug("t").is_none());
        assert!(handle.clone().load().trunk_by_slug("t").is_some());
    }

    /// Organisations with their parents, by index.
    fn tree(parents: &[Option<usize>]) -> (Snapshot, Vec<OrganisationId>) {
        let ids: Vec<_> = parents.iter().map(|_| OrganisationId::random()).collect();
        let rows = ids.iter().zip(parents).map(|(id, parent)| {
            let parent_id = parent.map(|parent| ids[parent]);
            (
                *id,
                Some(OrganisationRoute {
                    id: *id,
                    parent_id,
                    name: "o".into(),
                    concurrency_limit: None,
                    runtime: None,
                }),
            )
        });
        let organisations = rows.collect();
        (Snapshot::default().patched(Patch { organisations, ..Patch::default() }), ids)
    }

    #[test]
    fn organisations_are_related_by_a_common_root() {
        let (snapshot, ids) = tree(&[None, Some(0), Some(1), Some(0), None]);
        for (one, other, related) in
            [(0, 0, true), (0, 2, true), (2, 3, true), (1, 4, false), (4, 4, true)]
        {
            assert_eq!(snapshot.are_related(ids[one], ids[other]), related, "{one} {other}");
        }
        let stranger = OrganisationId::random();
        assert!(!snapshot.are_related(ids[0], stranger));
        let (circle, ids) = tree(&[Some(1), Some(0)]);
        assert!(!circle.are_related(ids[0], ids[1]), "and it is found out in finite time");
    }
}

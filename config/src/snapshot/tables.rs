//! The parts of a snapshot, and how the next one is made from a part and the rows that changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::shards::{NumberList, Shards};
use super::{AgentRoute, NumberRoute, TrunkRoute, VersionRoute};
use crate::ids::{AgentId, AgentVersionId, OrganisationId, TrunkId};

#[derive(Debug, Clone, Default)]
pub(super) struct NumberTable {
    pub(super) by_number: Shards<Box<str>, Arc<NumberRoute>>,
    pub(super) by_organisation: Shards<OrganisationId, Arc<NumberList>>,
}

impl NumberTable {
    pub(super) fn patch(&mut self, rows: Vec<(Box<str>, Option<NumberRoute>)>) {
        for (number, row) in rows {
            if let Some(old) = self.by_number.remove(&number) {
                self.change_list(old.organization_id, |list| list.remove(old.created_at));
            }
            if let Some(row) = row.map(Arc::new) {
                self.change_list(row.organization_id, |list| list.insert(Arc::clone(&row)));
                self.by_number.insert(number, row);
            }
        }
    }

    fn change_list(&mut self, of: OrganisationId, change: impl FnOnce(&mut NumberList)) {
        let mut list = self.by_organisation.remove(&of).unwrap_or_default();
        change(Arc::make_mut(&mut list));
        if !list.is_empty() {
            self.by_organisation.insert(of, list);
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct TrunkTable {
    pub(super) by_id: Shards<TrunkId, Arc<TrunkRoute>>,
    pub(super) slugs: Shards<Box<str>, TrunkId>,
    pub(super) digest_users: Shards<Box<str>, Vec<TrunkId>>,
    /// Trunks that ask for credentials and take calls from everywhere.
    pub(super) open_digest_trunks: usize,
    /// Trunks that are to be registered with their carriers.
    pub(super) registering: Arc<BTreeSet<TrunkId>>,
    pub(super) addresses: AddressTable,
}

impl TrunkTable {
    pub(super) fn patch(&mut self, rows: Vec<(TrunkId, Option<TrunkRoute>)>) {
        for (id, row) in rows {
            if let Some(old) = self.by_id.remove(&id) {
                self.forget(&old);
            }
            if let Some(row) = row {
                self.note(&row);
                self.by_id.insert(id, Arc::new(row));
            }
        }
    }

    fn note(&mut self, trunk: &TrunkRoute) {
        self.slugs.insert(trunk.slug.clone(), trunk.id);
        if let Some(digest) = &trunk.digest {
            self.digest_users.add(digest.username.clone(), trunk.id);
            self.open_digest_trunks += usize::from(trunk.allowed.is_none());
        }
        if registers(trunk) {
            Arc::make_mut(&mut self.registering).insert(trunk.id);
        }
        for network in trunk.allowed.iter().flatten() {
            self.addresses.insert(*network, trunk.id);
        }
    }

    fn forget(&mut self, trunk: &TrunkRoute) {
        self.slugs.remove(&trunk.slug);
        if let Some(digest) = &trunk.digest {
            self.digest_users.take_out(digest.username.clone(), &trunk.id);
            self.open_digest_trunks -= usize::from(trunk.allowed.is_none());
        }
        if registers(trunk) {
            Arc::make_mut(&mut self.registering).remove(&trunk.id);
        }
        for network in trunk.allowed.iter().flatten() {
            self.addresses.remove(*network, trunk.id);
        }
    }
}

fn registers(trunk: &TrunkRoute) -> bool {
    trunk.outbound.as_ref().is_some_and(|outbound| outbound.config.register)
}

/// An agent with its published versions by number.
#[derive(Debug, Clone)]
pub(super) struct AgentEntry {
    pub(super) route: AgentRoute,
    pub(super) numbered: BTreeMap<u32, AgentVersionId>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct AgentTable {
    pub(super) agents: Shards<AgentId, Arc<AgentEntry>>,
    pub(super) versions: Shards<AgentVersionId, Arc<VersionRoute>>,
}

impl AgentTable {
    /// `versions` are all published ones of these agents.
    pub(super) fn patch(
        &mut self,
        agents: Vec<(AgentId, Option<AgentRoute>)>,
        versions: Vec<VersionRoute>,
    ) {
        let mut entries = BTreeMap::new();
        for (id, route) in agents {
            for old in self.agents.remove(&id).iter().flat_map(|old| old.numbered.values()) {
                self.versions.remove(old);
            }
            if let Some(route) = route {
                entries.insert(id, AgentEntry { route, numbered: BTreeMap::new() });
            }
        }
        for version in versions {
            if let Some(entry) = entries.get_mut(&version.agent_id) {
                entry.numbered.insert(version.version, version.id);
            }
            self.versions.insert(version.id, Arc::new(version));
        }
        for (id, mut entry) in entries {
            entry.route.latest_published = entry.numbered.values().next_back().copied();
            self.agents.insert(id, Arc::new(entry));
        }
    }
}

/// Which trunks name which networks: for each prefix length in use, narrowest first, a map from the
/// network's address.
#[derive(Debug, Clone, Default)]
pub(super) struct AddressTable {
    by_length: Vec<(u8, Shards<IpAddr, Vec<TrunkId>>)>,
}

impl AddressTable {
    fn insert(&mut self, network: IpNet, trunk: TrunkId) {
        let length = network.prefix_len();
        let position = self.by_length.partition_point(|(at, _)| *at > length);
        if self.by_length.get(position).is_none_or(|(at, _)| *at != length) {
            self.by_length.insert(position, (length, Shards::default()));
        }
        if let Some((_, networks)) = self.by_length.get_mut(position) {
            networks.add(network.network(), trunk);
        }
    }

    fn remove(&mut self, network: IpNet, trunk: TrunkId) {
        let length = network.prefix_len();
        if let Some((_, networks)) = self.by_length.iter_mut().find(|(at, _)| *at == length) {
            networks.take_out(network.network(), &trunk);
        }
        self.by_length.retain(|(_, networks)| networks.len() > 0);
    }

    pub(super) fn lookup(&self, source: IpAddr) -> impl Iterator<Item = TrunkId> {
        self.by_length.iter().flat_map(move |(length, networks)| {
            let network = IpNet::new(source, *length).ok().map(|net| net.network());
            network.and_then(|network| networks.get(&network)).into_iter().flatten().copied()
        })
    }
}

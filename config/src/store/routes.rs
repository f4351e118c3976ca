//! Reading what decides about a call: everything at the start, and after a write what it touched.

use std::collections::{BTreeSet, HashMap};
use std::ops::Not;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::named_workflows::Found;
use super::organisation_settings::token_owner as default_token_owner;
use super::rows::{json, json_opt, parsed, parsed_opt, raw, small, small_opt, time};
use super::sql::{self, Connection, Row};
use super::trunks::{inbound_owner, outbound_owner};
use super::versions::token_owner;
use super::{Store, StoreError, inbound_routing};
use crate::briefing::AgentWorkflows;
use crate::ids::{AgentId, OrganisationId, TrunkId, WorkflowId};
use crate::model::{AllowedAddress, E164, InboundConfig, OutboundConfig, Runtime};
use crate::snapshot::{
    AgentRoute, DigestUser, Fallback, NumberRoute, OrganisationRoute, OutboundRoute, Patch,
    RoutingRoute, Snapshot, TrunkRoute, VersionRoute,
};
use crate::workflows::Definition;

/// The rows that one write may have changed, made or removed. Other nodes are told in this form.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Touched {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) numbers: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) trunks: Vec<TrunkId>,
    /// With all their versions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) agents: Vec<AgentId>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) organisations: Vec<OrganisationId>,
    /// Organisations whose inbound routing was written.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) routings: Vec<OrganisationId>,
    /// Those that agents may name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) workflows: Vec<WorkflowId>,
    /// All rows there are.
    #[serde(skip_serializing_if = "Not::not")]
    pub(super) everything: bool,
}

impl Touched {
    pub(super) fn number(number: &E164) -> Self {
        Self { numbers: vec![number.to_string()], ..Self::default() }
    }

    pub(super) fn trunk(id: TrunkId) -> Self {
        Self { trunks: vec![id], ..Self::default() }
    }

    pub(super) fn agent(id: AgentId) -> Self {
        Self { agents: vec![id], ..Self::default() }
    }

    pub(super) fn organisation(id: OrganisationId) -> Self {
        Self { organisations: vec![id], ..Self::default() }
    }

    pub(super) fn routing(of: OrganisationId) -> Self {
        Self { routings: vec![of], ..Self::default() }
    }

    pub(super) fn workflow(id: WorkflowId) -> Self {
        Self { workflows: vec![id], ..Self::default() }
    }

    pub(super) fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }
}

impl Store {
    /// Reads everything, at the start.
    pub(super) async fn load_routes(&self) -> Result<(), StoreError> {
        let mut tx = self.0.db.read().await?;
        let snapshot = self.whole_snapshot(&mut tx).await?;
        self.0.snapshot.swap(snapshot);
        Ok(())
    }

    /// The present snapshot with the touched rows as they are now.
    pub(super) async fn next_snapshot(
        &self,
        tx: &mut Connection,
        touched: &Touched,
    ) -> Result<Snapshot, StoreError> {
        if touched.everything {
            return self.whole_snapshot(tx).await;
        }
        let mut patch = Patch::default();
        for number in &touched.numbers {
            let sql = "SELECT * FROM phone_numbers WHERE phone_number = ?";
            let row = one(tx, sql, number, number_route).await?;
            patch.numbers.push((number.as_str().into(), row));
        }
        for id in &touched.trunks {
            let sql = "SELECT * FROM trunks WHERE id = ?";
            let row = one(tx, sql, &id.to_string(), |row| self.trunk_route(row)).await?;
            patch.trunks.push((*id, row));
        }
        let present = self.0.snapshot.load();
        let mut agents: BTreeSet<AgentId> = touched.agents.iter().copied().collect();
        agents.extend(present.agents_naming(&touched.workflows));
        for id in agents {
            let (sql, key) = ("SELECT * FROM agents WHERE id = ?", id.to_string());
            patch.agents.push((id, one(tx, sql, &key, agent_route).await?));
            let sql = "SELECT id, agent_id, version, config, runtime_token FROM agent_versions
                       WHERE published AND agent_id = ?";
            for row in sql::query(sql).bind(key).fetch_all(&mut *tx).await? {
                patch.versions.push(self.version_route(&row)?);
            }
        }
        for id in &touched.organisations {
            let sql = "SELECT * FROM organisations WHERE id = ?";
            let row = one(tx, sql, &id.to_string(), |row| self.organisation_route(row)).await?;
            patch.organisations.push((*id, row));
        }
        for id in &touched.routings {
            let sql = "SELECT * FROM inbound_routing_configs WHERE organization_id = ?";
            let row = one(tx, sql, &id.to_string(), routing_route).await?;
            patch.routings.push((*id, row.map(|(_, row)| row)));
        }
        put_workflows(tx, &mut patch).await?;
        Ok(present.patched(patch))
    }

    pub(super) async fn whole_snapshot(&self, tx: &mut Connection) -> Result<Snapshot, StoreError> {
        let mut patch = Patch::default();
        let sql = "SELECT * FROM organisations";
        for row in all(tx, sql, |row| self.organisation_route(row)).await? {
            patch.organisations.push((row.id, Some(row)));
        }
        for row in all(tx, "SELECT * FROM phone_numbers", number_route).await? {
            patch.numbers.push((row.number.clone(), Some(row)));
        }
        for row in all(tx, "SELECT * FROM trunks", |row| self.trunk_route(row)).await? {
            patch.trunks.push((row.id, Some(row)));
        }
        for row in all(tx, "SELECT * FROM agents", agent_route).await? {
            patch.agents.push((row.id, Some(row)));
        }
        for (id, row) in all(tx, "SELECT * FROM inbound_routing_configs", routing_route).await? {
            patch.routings.push((id, Some(row)));
        }
        let sql = "SELECT id, agent_id, version, config, runtime_token FROM agent_versions
                   WHERE published";
        patch.versions = all(tx, sql, |row| self.version_route(row)).await?;
        put_workflows(tx, &mut patch).await?;
        Ok(Snapshot::default().patched(patch))
    }

    fn trunk_route(&self, row: &Row) -> Result<TrunkRoute, StoreError> {
        let id: TrunkId = parsed(row, "id")?;
        let inbound: InboundConfig = json_opt(row, "inbound_config")?.unwrap_or_default();
        let networks =
            |list: &Vec<AllowedAddress>| list.iter().map(AllowedAddress::network).collect();
        Ok(TrunkRoute {
            id,
            organization_id: parsed(row, "organization_id")?,
            name: boxed(row, "name")?,
            slug: boxed(row, "slug")?,
            managed: raw::<Option<&str>>(row, "managed_account_id")?.is_some(),
            noise_cancellation: inbound.enable_noise_cancellation,
            encryption: inbound.media_encryption,
            allowed: inbound.allowed_addresses.as_ref().map(networks),
            digest: self.digest_user(row, id, inbound.auth_username)?,
            max_concurrent_calls: inbound.max_concurrent_calls,
            calls_per_second: inbound.calls_per_second,
            outbound: self.outbound_route(row, id)?,
        })
    }

    fn digest_user(
        &self,
        row: &Row,
        id: TrunkId,
        username: Option<String>,
    ) -> Result<Option<DigestUser>, StoreError> {
        let Some(username) = username else { return Ok(None) };
        let sealed: &[u8] = raw(row, "inbound_password")?;
        let password = self.0.options.sealer.open_sealed(&inbound_owner(id), sealed)?;
        Ok(Some(DigestUser { username: username.into(), password }))
    }

    fn outbound_route(&self, row: &Row, id: TrunkId) -> Result<Option<OutboundRoute>, StoreError> {
        let config: Option<OutboundConfig> = json_opt(row, "outbound_config")?;
        let Some(config) = config else { return Ok(None) };
        let sealed: &[u8] = raw(row, "outbound_password")?;
        let password = self.0.options.sealer.open_sealed(&outbound_owner(id), sealed)?;
        Ok(Some(OutboundRoute { config, password }))
    }

    fn version_route(&self, row: &Row) -> Result<VersionRoute, StoreError> {
        let agent_id = parsed(row, "agent_id")?;
        let config: serde_json::Value = json(row, "config")?;
        let token = raw::<Option<&[u8]>>(row, "runtime_token")?
            .map(|sealed| self.0.options.sealer.open_sealed(&token_owner(agent_id), sealed))
            .transpose()?;
        Ok(VersionRoute {
            id: parsed(row, "id")?,
            agent_id,
            version: small(row, "version")?,
            runtime: Runtime::read(&config).map(|runtime| runtime.with_token(token)),
            workflows: Arc::new(AgentWorkflows::read(&config)),
            published: true,
        })
    }

    fn organisation_route(&self, row: &Row) -> Result<OrganisationRoute, StoreError> {
        let id = parsed(row, "id")?;
        let block: Option<serde_json::Value> = json_opt(row, "default_runtime")?;
        let config = serde_json::json!({ "runtime": block });
        let token = raw::<Option<&[u8]>>(row, "runtime_token")?
            .map(|sealed| self.0.options.sealer.open_sealed(&default_token_owner(id), sealed))
            .transpose()?;
        Ok(OrganisationRoute {
            id,
            parent_id: parsed_opt(row, "parent_id")?,
            name: boxed(row, "name")?,
            concurrency_limit: small_opt(row, "concurrency_limit")?,
            runtime: Runtime::read(&config).map(|runtime| runtime.with_token(token)),
        })
    }
}

/// Puts stored workflows where the agents of a patch name them.
async fn put_workflows(tx: &mut Connection, patch: &mut Patch) -> Result<(), StoreError> {
    let agents = patch.agents.iter().filter_map(|(id, row)| Some((*id, row.as_ref()?)));
    let owners: HashMap<AgentId, OrganisationId> =
        agents.map(|(id, row)| (id, row.organization_id)).collect();
    let mut found = Found::default();
    for version in &mut patch.versions {
        if let Some(owner) = owners.get(&version.agent_id) {
            found.put_into(tx, *owner, Arc::make_mut(&mut version.workflows)).await?;
        }
    }
    Ok(())
}

fn number_route(row: &Row) -> Result<NumberRoute, StoreError> {
    Ok(NumberRoute {
        number: boxed(row, "phone_number")?,
        organization_id: parsed(row, "organization_id")?,
        trunk_id: parsed(row, "trunk_id")?,
        inbound_version: parsed_opt(row, "inbound_agent_version_id")?,
        outbound_version: parsed_opt(row, "outbound_agent_version_id")?,
        outbound_shareable: raw(row, "outbound_shareable")?,
        created_at: time(row, "created_at")?,
    })
}

fn agent_route(row: &Row) -> Result<AgentRoute, StoreError> {
    Ok(AgentRoute {
        id: parsed(row, "id")?,
        organization_id: parsed(row, "organization_id")?,
        name: boxed(row, "name")?,
        active: raw(row, "active")?,
        deployed_as_sip: raw(row, "deployed_as_sip")?,
        latest_published: None, // the snapshot finds it among the versions
    })
}

fn routing_route(row: &Row) -> Result<(OrganisationId, RoutingRoute), StoreError> {
    let config = inbound_routing::from_row(row)?;
    let workflow = Definition::parse(&config.workflow_definition);
    let route = RoutingRoute {
        workflow: workflow.map(|parsed| parsed.definition).map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            faults.join("; ")
        }),
        fallback: config
            .fallback_agent_id
            .map(|agent| Fallback { agent, version: config.fallback_agent_version }),
        enabled: config.enabled,
    };
    Ok((config.organization_id, route))
}

fn boxed(row: &Row, column: &'static str) -> Result<Box<str>, StoreError> {
    raw::<&str>(row, column).map(Box::from)
}

async fn all<T>(
    tx: &mut Connection,
    sql: &'static str,
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    sql::query(sql).fetch_all(tx).await?.iter().map(read).collect()
}

async fn one<T>(
    tx: &mut Connection,
    sql: &'static str,
    key: &str,
    read: impl Fn(&Row) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    sql::query(sql).bind(key).fetch_optional(tx).await?.as_ref().map(read).transpose()
}

//! Reading everything that decides about a call, in one transaction.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::rows::{json, json_opt, parsed, parsed_opt, raw, small};
use super::trunks::{inbound_owner, outbound_owner};
use super::versions::token_owner;
use super::{Store, StoreError};
use crate::ids::TrunkId;
use crate::model::{AllowedAddress, InboundConfig, OutboundConfig, Runtime};
use crate::snapshot::{
    AgentRoute, DigestUser, NumberRoute, OrganisationRoute, OutboundRoute, Rows, Snapshot,
    TrunkRoute, VersionRoute,
};

impl Store {
    pub(super) async fn load_snapshot(&self) -> Result<Snapshot, StoreError> {
        let mut tx = self.0.db.read().await?;
        let organisations = rows(&mut tx, "SELECT id, name FROM organisations", |row| {
            Ok(OrganisationRoute { id: parsed(row, "id")?, name: boxed(row, "name")? })
        })
        .await?;
        let numbers = rows(&mut tx, "SELECT * FROM phone_numbers", number).await?;
        let trunks = rows(&mut tx, "SELECT * FROM trunks", |row| self.trunk_route(row)).await?;
        let agents = rows(&mut tx, "SELECT * FROM agents", agent).await?;
        let sql = "SELECT id, agent_id, version, config, runtime_token FROM agent_versions
                   WHERE published";
        let versions = rows(&mut tx, sql, |row| self.version_route(row)).await?;
        drop(tx);
        Ok(Snapshot::build(Rows { organisations, numbers, trunks, agents, versions }))
    }

    fn trunk_route(&self, row: &SqliteRow) -> Result<TrunkRoute, StoreError> {
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
        row: &SqliteRow,
        id: TrunkId,
        username: Option<String>,
    ) -> Result<Option<DigestUser>, StoreError> {
        let Some(username) = username else { return Ok(None) };
        let sealed: &[u8] = raw(row, "inbound_password")?;
        let password = self.0.options.sealer.open_sealed(&inbound_owner(id), sealed)?;
        Ok(Some(DigestUser { username: username.into(), password }))
    }

    fn outbound_route(
        &self,
        row: &SqliteRow,
        id: TrunkId,
    ) -> Result<Option<OutboundRoute>, StoreError> {
        let config: Option<OutboundConfig> = json_opt(row, "outbound_config")?;
        let Some(config) = config else { return Ok(None) };
        let sealed: &[u8] = raw(row, "outbound_password")?;
        let password = self.0.options.sealer.open_sealed(&outbound_owner(id), sealed)?;
        Ok(Some(OutboundRoute { config, password }))
    }

    fn version_route(&self, row: &SqliteRow) -> Result<VersionRoute, StoreError> {
        let agent_id = parsed(row, "agent_id")?;
        let config: serde_json::Value = json(row, "config")?;
        let token = raw::<Option<&[u8]>>(row, "runtime_token")?
            .map(|sealed| self.0.options.sealer.open_sealed(&token_owner(agent_id), sealed))
            .transpose()?;
        Ok(VersionRoute {
            id: parsed(row, "id")?,
            agent_id,
            version: small(row, "version")?,
            runtime: Runtime::read(&config).unwrap_or_default().with_token(token),
            published: true,
        })
    }
}

fn number(row: &SqliteRow) -> Result<NumberRoute, StoreError> {
    Ok(NumberRoute {
        number: boxed(row, "phone_number")?,
        organization_id: parsed(row, "organization_id")?,
        trunk_id: parsed(row, "trunk_id")?,
        inbound_version: parsed_opt(row, "inbound_agent_version_id")?,
        outbound_version: parsed_opt(row, "outbound_agent_version_id")?,
        outbound_shareable: raw(row, "outbound_shareable")?,
    })
}

fn agent(row: &SqliteRow) -> Result<AgentRoute, StoreError> {
    Ok(AgentRoute {
        id: parsed(row, "id")?,
        organization_id: parsed(row, "organization_id")?,
        name: boxed(row, "name")?,
        active: raw(row, "active")?,
        deployed_as_sip: raw(row, "deployed_as_sip")?,
        latest_published: None, // the snapshot finds it among the versions
    })
}

fn boxed(row: &SqliteRow, column: &'static str) -> Result<Box<str>, StoreError> {
    raw::<&str>(row, column).map(Box::from)
}

async fn rows<T>(
    tx: &mut SqliteConnection,
    sql: &'static str,
    read: impl Fn(&SqliteRow) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    sqlx::query(sql).fetch_all(tx).await?.iter().map(read).collect()
}

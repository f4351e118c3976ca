//! Verbs on an organisation's inbound routing config. There is one at most.

use super::routes::Touched;
use super::rows::{
    free_stamp, free_stamp_in, json, parsed, parsed_opt, raw, small_opt, time, to_json,
};
use super::sql::{self, Connection, Row};
use super::{After, Change, Store, StoreError};
use crate::credential::ScopedTo;
use crate::ids::{AgentId, InboundRoutingConfigId, OrganisationId};
use crate::model::{InboundRoutingConfig, InboundRoutingConfigChange, NewInboundRoutingConfig};

const FREE_STAMP: &str = free_stamp_in!("inbound_routing_configs");

const NOUN: &str = "Inbound routing config";

impl Store {
    /// The organisation's config, if it has one.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn inbound_routing(
        &self,
        scope: &ScopedTo<OrganisationId>,
    ) -> Result<Option<InboundRoutingConfig>, StoreError> {
        let mut tx = self.0.db.read().await?;
        load(&mut tx, scope).await
    }

    /// Makes the organisation's config. That its workflow can be run was checked before.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if there is one; [`StoreError::Refused`] for a fallback agent that
    /// could not answer; [`StoreError::Invalid`].
    pub async fn create_inbound_routing(
        &self,
        scope: &ScopedTo<OrganisationId>,
        new: NewInboundRoutingConfig,
    ) -> Result<InboundRoutingConfig, StoreError> {
        new.validate()?;
        let mut tx = self.0.db.write().await?;
        if load(&mut tx, scope).await?.is_some() {
            return Err(StoreError::Conflict(format!("{NOUN} already exists")));
        }
        let at = free_stamp(&mut tx, FREE_STAMP, self.now()).await?;
        let config = InboundRoutingConfig {
            id: InboundRoutingConfigId::random(),
            organization_id: scope.organisation(),
            workflow_definition: new.workflow_definition.into(),
            fallback_agent_id: new.fallback_agent_id,
            fallback_agent_version: new.fallback_agent_version,
            enabled: new.enabled,
            created_at: at,
            updated_at: at,
        };
        check_fallback(&mut tx, &config).await?;
        sql::query(
            "INSERT INTO inbound_routing_configs
                 (id, organization_id, workflow_definition, fallback_agent_id,
                  fallback_agent_version, enabled, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(config.id.to_string())
        .bind(config.organization_id.to_string())
        .bind(to_json(&config.workflow_definition)?)
        .bind(config.fallback_agent_id.map(|id| id.to_string()))
        .bind(config.fallback_agent_version)
        .bind(config.enabled)
        .bind(at.micros())
        .bind(at.micros())
        .execute(&mut tx)
        .await?;
        tx.note(Change::of(scope, "routing.create").object(config.id).after(&config)?);
        self.commit(tx, After::routes(Touched::routing(config.organization_id))).await?;
        Ok(config)
    }

    /// Changes the organisation's config. Without a fallback agent its version goes, too.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none; [`StoreError::Refused`] for a fallback agent that
    /// could not answer; [`StoreError::Invalid`].
    pub async fn update_inbound_routing(
        &self,
        scope: &ScopedTo<OrganisationId>,
        change: InboundRoutingConfigChange,
    ) -> Result<InboundRoutingConfig, StoreError> {
        change.validate()?;
        let mut tx = self.0.db.write().await?;
        let mut config = load(&mut tx, scope).await?.ok_or_else(|| StoreError::not_found(NOUN))?;
        let names_fallback =
            change.fallback_agent_id.is_some() || change.fallback_agent_version.is_some();
        let note = Change::of(scope, "routing.update").object(config.id).before(&config)?;
        apply(&mut config, change);
        if names_fallback {
            check_fallback(&mut tx, &config).await?;
        }
        config.updated_at = self.now();
        sql::query(
            "UPDATE inbound_routing_configs SET workflow_definition = ?, fallback_agent_id = ?,
                 fallback_agent_version = ?, enabled = ?, updated_at = ?
             WHERE id = ?",
        )
        .bind(to_json(&config.workflow_definition)?)
        .bind(config.fallback_agent_id.map(|id| id.to_string()))
        .bind(config.fallback_agent_version)
        .bind(config.enabled)
        .bind(config.updated_at.micros())
        .bind(config.id.to_string())
        .execute(&mut tx)
        .await?;
        tx.note(note.after(&config)?);
        self.commit(tx, After::routes(Touched::routing(config.organization_id))).await?;
        Ok(config)
    }

    /// Gives the config up: from now on the numbers' inbound slots decide.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub async fn delete_inbound_routing(
        &self,
        scope: &ScopedTo<OrganisationId>,
    ) -> Result<(), StoreError> {
        let organisation = scope.organisation();
        let mut tx = self.0.db.write().await?;
        let done = sql::query("DELETE FROM inbound_routing_configs WHERE organization_id = ?")
            .bind(organisation.to_string())
            .execute(&mut tx)
            .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::not_found(NOUN));
        }
        tx.note(Change::of(scope, "routing.delete").object(organisation));
        self.commit(tx, After::routes(Touched::routing(organisation))).await
    }
}

fn apply(config: &mut InboundRoutingConfig, change: InboundRoutingConfigChange) {
    if let Some(definition) = change.workflow_definition {
        config.workflow_definition = definition.into();
    }
    if let Some(agent) = change.fallback_agent_id {
        config.fallback_agent_id = agent;
    }
    if let Some(version) = change.fallback_agent_version {
        config.fallback_agent_version = version;
    }
    if change.fallback_agent_id == Some(None) {
        config.fallback_agent_version = None;
    }
    if let Some(enabled) = change.enabled {
        config.enabled = enabled;
    }
}

/// A fallback agent must be able to answer: the organisation's own, with a published version.
async fn check_fallback(
    tx: &mut Connection,
    config: &InboundRoutingConfig,
) -> Result<(), StoreError> {
    let Some(agent) = config.fallback_agent_id else {
        return match config.fallback_agent_version {
            Some(_) => Err(StoreError::refused("fallback_agent_version needs fallback_agent_id")),
            None => Ok(()),
        };
    };
    let versions = sql::query(
        "SELECT v.version FROM agents a LEFT JOIN agent_versions v
             ON v.agent_id = a.id AND v.published
         WHERE a.id = ? AND a.organization_id = ?",
    )
    .bind(agent.to_string())
    .bind(config.organization_id.to_string())
    .fetch_all(tx)
    .await?;
    let published = versions.iter().map(|row| small_opt(row, "version"));
    let published: Vec<Option<u32>> = published.collect::<Result<_, _>>()?;
    if published.is_empty() {
        return Err(StoreError::refused("fallback_agent_id is not an agent of this organization"));
    }
    match config.fallback_agent_version {
        None if published.iter().all(Option::is_none) => {
            Err(StoreError::refused("The fallback agent has no published version"))
        }
        Some(number) if !published.contains(&Some(number)) => {
            Err(StoreError::refused("fallback_agent_version is not a published version"))
        }
        _ => Ok(()),
    }
}

async fn load(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
) -> Result<Option<InboundRoutingConfig>, StoreError> {
    let row = sql::query("SELECT * FROM inbound_routing_configs WHERE organization_id = ?")
        .bind(scope.organisation().to_string())
        .fetch_optional(tx)
        .await?;
    row.as_ref().map(from_row).transpose()
}

pub(super) fn from_row(row: &Row) -> Result<InboundRoutingConfig, StoreError> {
    let fallback_agent_id: Option<AgentId> = parsed_opt(row, "fallback_agent_id")?;
    // The agent may have been deleted, and its id with it.
    let version = small_opt(row, "fallback_agent_version")?.filter(|_| fallback_agent_id.is_some());
    Ok(InboundRoutingConfig {
        id: parsed(row, "id")?,
        organization_id: parsed(row, "organization_id")?,
        workflow_definition: json(row, "workflow_definition")?,
        fallback_agent_id,
        fallback_agent_version: version,
        enabled: raw(row, "enabled")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

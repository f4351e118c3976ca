//! Verbs on agents and their SIP endpoints.

use super::routes::Touched;
use super::rows::{
    and, and_holds, and_period, free_stamp, free_stamp_in, json_opt, paged, parsed, raw, time,
    to_json_opt,
};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Change, Store, StoreError, numbers, versions};
use crate::credential::ScopedTo;
use crate::ids::{AgentId, OrganisationId};
use crate::model::{
    Agent, AgentChange, AgentDetail, AgentFilter, ConversationStats, NewAgent, Page, SipEndpoint,
    VersionFilter, contains_all,
};

const FREE_STAMP: &str = free_stamp_in!("agents");

/// Rows read at a time when a filter must look into JSON.
const JSON_SCAN_ROWS: u32 = 500;

impl Store {
    /// Makes an agent: a stub, without a version.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a field that is not acceptable.
    pub async fn create_agent(
        &self,
        scope: &ScopedTo<OrganisationId>,
        new: NewAgent,
    ) -> Result<Agent, StoreError> {
        self.create_agent_with_id(scope, AgentId::random(), new).await
    }

    /// As [`Store::create_agent`], with an id that was given to it before.
    pub(super) async fn create_agent_with_id(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: AgentId,
        new: NewAgent,
    ) -> Result<Agent, StoreError> {
        new.validate()?;
        let mut tx = self.0.db.write().await?;
        let at = free_stamp(&mut tx, FREE_STAMP, self.now()).await?;
        sql::query(
            "INSERT INTO agents (id, organization_id, name, name_folded, description, active,
                 is_demo, metadata, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(scope.organisation().to_string())
        .bind(&new.name)
        .bind(new.name.to_lowercase())
        .bind(new.description)
        .bind(new.active)
        .bind(new.is_demo)
        .bind(to_json_opt(new.metadata.as_ref())?)
        .bind(at.micros())
        .bind(at.micros())
        .execute(&mut tx)
        .await?;
        let agent = self.load_agent(&mut tx, scope, id).await?;
        tx.note(Change::of(scope, "agent.create").object(id).after(&agent)?);
        self.commit(tx, After::routes(Touched::agent(id))).await?;
        Ok(agent)
    }

    /// One agent.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such agent.
    pub async fn agent(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: AgentId,
    ) -> Result<Agent, StoreError> {
        let mut tx = self.0.db.read().await?;
        self.load_agent(&mut tx, scope, id).await
    }

    /// One agent with everything that hangs on it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such agent.
    pub async fn agent_detail(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: AgentId,
    ) -> Result<AgentDetail, StoreError> {
        let mut tx = self.0.db.read().await?;
        let agent = self.load_agent(&mut tx, scope, id).await?;
        let newest = Page::default();
        let versions = versions::list(&mut tx, id, &VersionFilter::default(), newest).await?;
        let phone_numbers = numbers::of_agent(&mut tx, id).await?;
        let conversation_stats = stats(&mut tx, id).await?;
        let web_widgets = Vec::new();
        Ok(AgentDetail { agent, versions, phone_numbers, web_widgets, conversation_stats })
    }

    /// The organisation's agents, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn agents(
        &self,
        scope: &ScopedTo<OrganisationId>,
        filter: &AgentFilter,
        page: Page,
    ) -> Result<Vec<Agent>, StoreError> {
        let mut tx = self.0.db.read().await?;
        let wanted = usize::try_from(page.limit.clamp(1, Page::MAX)).unwrap_or(usize::MAX);
        let scanned = match filter.metadata {
            Some(_) => Page { limit: page.limit.max(JSON_SCAN_ROWS), ..page },
            None => page,
        };
        let (mut found, mut cursor) = (Vec::new(), scanned);
        loop {
            let batch = self.agents_page(&mut tx, scope, filter, cursor).await?;
            let last = batch.last().map(|agent| agent.created_at);
            let is_end = batch.len() < usize::try_from(cursor.limit).unwrap_or(usize::MAX);
            found.extend(batch.into_iter().filter(|agent| has_metadata(agent, filter)));
            if is_end || found.len() >= wanted || last.is_none() {
                found.truncate(wanted);
                return Ok(found);
            }
            cursor.before = last;
        }
    }

    async fn agents_page(
        &self,
        tx: &mut Connection,
        scope: &ScopedTo<OrganisationId>,
        filter: &AgentFilter,
        page: Page,
    ) -> Result<Vec<Agent>, StoreError> {
        let mut query = QueryBuilder::new("SELECT t.* FROM agents t WHERE t.organization_id = ");
        query.push_bind(scope.organisation().to_string());
        and_holds(&mut query, "t.name_folded", filter.name.as_ref());
        and(&mut query, "t.active =", filter.active);
        and(&mut query, "t.is_demo =", filter.is_demo);
        and_period(&mut query, &filter.period);
        paged(&mut query, page);
        query.build().fetch_all(tx).await?.iter().map(|row| self.agent_from_row(row)).collect()
    }

    /// Changes an agent.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Invalid`] for a field that is not acceptable.
    pub async fn update_agent(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: AgentId,
        change: AgentChange,
    ) -> Result<Agent, StoreError> {
        change.validate()?;
        let mut tx = self.0.db.write().await?;
        let old = self.load_agent(&mut tx, scope, id).await?;
        let note = Change::of(scope, "agent.update").object(id).before(&old)?;
        let agent = Agent {
            name: change.name.unwrap_or(old.name),
            description: change.description.unwrap_or(old.description),
            active: change.active.unwrap_or(old.active),
            is_demo: change.is_demo.unwrap_or(old.is_demo),
            metadata: change.metadata.unwrap_or(old.metadata),
            updated_at: self.now(),
            ..old
        };
        sql::query(
            "UPDATE agents SET name = ?, name_folded = ?, description = ?, active = ?,
                 is_demo = ?, metadata = ?, updated_at = ?
             WHERE id = ?",
        )
        .bind(&agent.name)
        .bind(agent.name.to_lowercase())
        .bind(&agent.description)
        .bind(agent.active)
        .bind(agent.is_demo)
        .bind(to_json_opt(agent.metadata.as_ref())?)
        .bind(agent.updated_at.micros())
        .bind(id.to_string())
        .execute(&mut tx)
        .await?;
        tx.note(note.after(&agent)?);
        self.commit(tx, After::routes(Touched::agent(id))).await?;
        Ok(agent)
    }

    /// Removes an agent with its versions and its SIP endpoint, and clears the slots that held one
    /// of them. Conversations stay.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such agent.
    pub async fn delete_agent(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: AgentId,
    ) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let agent = self.load_agent(&mut tx, scope, id).await?;
        let numbers = sql::query(
            "SELECT phone_number FROM phone_numbers, agent_versions v
             WHERE v.agent_id = ? AND v.id IN (inbound_agent_version_id, outbound_agent_version_id)",
        )
        .bind(id.to_string())
        .fetch_scalars(&mut tx)
        .await?;
        // Versions go, and slots are cleared, by the tables' foreign keys.
        sql::query("DELETE FROM agents WHERE id = ?").bind(id.to_string()).execute(&mut tx).await?;
        tx.note(Change::of(scope, "agent.delete").object(id).before(&agent)?);
        let touched = Touched { numbers, ..Touched::agent(id) };
        self.commit(tx, After::routes(touched)).await
    }

    /// Makes an agent answer at its SIP URI. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] while no version is published.
    pub async fn deploy_as_sip(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: AgentId,
    ) -> Result<SipEndpoint, StoreError> {
        let mut tx = self.0.db.write().await?;
        let agent = self.load_agent(&mut tx, scope, id).await?;
        let sql = "SELECT EXISTS (SELECT 1 FROM agent_versions WHERE agent_id = ? AND published)";
        let is_published: bool = sql::query(sql).bind(id.to_string()).fetch_scalar(&mut tx).await?;
        if !is_published {
            let why = "Agent has no published version".to_owned();
            return Err(StoreError::Conflict(why));
        }
        self.set_deployed(&mut tx, id, true).await?;
        let note = Change::of(scope, "agent.deploy").object(id).before(&agent)?;
        let note = note.after(&self.load_agent(&mut tx, scope, id).await?)?;
        tx.note(note);
        self.commit(tx, After::routes(Touched::agent(id))).await?;
        Ok(SipEndpoint { uri: self.0.options.sip_host.agent_uri(id), deployed: true })
    }

    /// Stops an agent answering at its SIP URI. Doing it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such agent.
    pub async fn undeploy_as_sip(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: AgentId,
    ) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        let agent = self.load_agent(&mut tx, scope, id).await?;
        self.set_deployed(&mut tx, id, false).await?;
        let note = Change::of(scope, "agent.undeploy").object(id).before(&agent)?;
        let note = note.after(&self.load_agent(&mut tx, scope, id).await?)?;
        tx.note(note);
        self.commit(tx, After::routes(Touched::agent(id))).await
    }

    async fn set_deployed(
        &self,
        tx: &mut Connection,
        id: AgentId,
        deployed: bool,
    ) -> Result<(), StoreError> {
        sql::query(
            "UPDATE agents SET deployed_as_sip = ?1, updated_at = ?2
             WHERE id = ?3 AND deployed_as_sip <> ?1",
        )
        .bind(deployed)
        .bind(self.now().micros())
        .bind(id.to_string())
        .execute(tx)
        .await?;
        Ok(())
    }

    pub(super) async fn load_agent(
        &self,
        tx: &mut Connection,
        scope: &ScopedTo<OrganisationId>,
        id: AgentId,
    ) -> Result<Agent, StoreError> {
        let row = sql::query("SELECT * FROM agents WHERE id = ? AND organization_id = ?")
            .bind(id.to_string())
            .bind(scope.organisation().to_string())
            .fetch_optional(tx)
            .await?;
        self.agent_from_row(&row.ok_or_else(|| StoreError::not_found("Agent"))?)
    }

    fn agent_from_row(&self, row: &Row) -> Result<Agent, StoreError> {
        let id = parsed(row, "id")?;
        Ok(Agent {
            id,
            agent_id: id,
            organization_id: parsed(row, "organization_id")?,
            name: raw(row, "name")?,
            description: raw(row, "description")?,
            active: raw(row, "active")?,
            is_demo: raw(row, "is_demo")?,
            metadata: json_opt(row, "metadata")?,
            sip_endpoint: Some(SipEndpoint {
                uri: self.0.options.sip_host.agent_uri(id),
                deployed: raw(row, "deployed_as_sip")?,
            }),
            created_at: time(row, "created_at")?,
            updated_at: time(row, "updated_at")?,
        })
    }
}

fn has_metadata(agent: &Agent, filter: &AgentFilter) -> bool {
    let Some(part) = &filter.metadata else { return true };
    let whole = agent.metadata.as_ref().and_then(|value| value.as_object());
    whole.map_or(part.is_empty(), |whole| contains_all(whole, part))
}

async fn stats(tx: &mut Connection, id: AgentId) -> Result<ConversationStats, StoreError> {
    let row = sql::query(
        "SELECT count(*) AS total,
                count(*) FILTER (WHERE direction = 'inbound') AS inbound,
                count(*) FILTER (WHERE direction = 'outbound') AS outbound,
                count(*) FILTER (WHERE status = 'completed') AS completed,
                CAST(coalesce(sum(duration), 0) AS BIGINT) AS seconds
         FROM conversations WHERE agent_id = ?",
    )
    .bind(id.to_string())
    .fetch_one(tx)
    .await?;
    Ok(ConversationStats {
        total: raw(&row, "total")?,
        inbound: raw(&row, "inbound")?,
        outbound: raw(&row, "outbound")?,
        completed: raw(&row, "completed")?,
        total_duration_seconds: raw(&row, "seconds")?,
    })
}

//! Verbs on the versions of an agent.
//!
//! The token or password of an agent's runtime never stays in the config: it is sealed beside it, for
//! the agent, so that copying a version copies it too. In a config that is written, `null` or nothing
//! keeps it while the place and user it belongs to stay the same; an empty text removes it.

use serde_json::Value;

use super::generation::refuse_generating;
use super::rows::{
    and, and_period, free_stamp, free_stamp_in, json, json_opt, paged, parsed, raw, small, time,
    to_json, to_json_opt, to_word, word, word_opt,
};
use super::sql::{self, Connection, QueryBuilder};
use super::{After, Change, Store, StoreError};
use crate::credential::ScopedTo;
use crate::ids::{AgentId, AgentVersionId, OrganisationId};
use crate::model::{
    AgentVersion, InstructionsStatus, Invalid, NewVersion, Page, Runtime, VersionChange,
    VersionFilter, VersionRef,
};

const FREE_STAMP: &str = free_stamp_in!("agent_versions");

/// What a runtime token is sealed for.
pub(super) fn token_owner(agent: AgentId) -> String {
    format!("agent:{agent}:runtime")
}

/// A version's row, its token sealed.
pub(super) struct Row {
    pub(super) version: AgentVersion,
    pub(super) token: Option<Vec<u8>>,
}

impl Store {
    /// Makes a draft, from a config or as a copy.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown agent or base; [`StoreError::Invalid`] for a config
    /// that is not acceptable, or unless exactly one of the two is given.
    pub async fn create_version(
        &self,
        scope: &ScopedTo<OrganisationId>,
        agent: AgentId,
        new: NewVersion,
    ) -> Result<AgentVersion, StoreError> {
        new.validate()?;
        let mut tx = self.0.db.write().await?;
        let mut row = self.prepare_version(&mut tx, scope, agent, new).await?;
        self.insert_draft(&mut tx, &mut row).await?;
        tx.note(Change::of(scope, "version.create").object(row.version.id).after(&row.version)?);
        self.commit(tx, After::default()).await?;
        Ok(row.version)
    }

    /// One version by number, or `latest`: the newest, which is made sure to be a draft. For that an
    /// agent without versions gets its first, and a published newest version gets a copy.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown agent or number.
    pub async fn version(
        &self,
        scope: &ScopedTo<OrganisationId>,
        agent: AgentId,
        which: VersionRef,
    ) -> Result<AgentVersion, StoreError> {
        {
            let mut tx = self.0.db.read().await?;
            self.load_agent(&mut tx, scope, agent).await?;
            match (which, load(&mut tx, agent, which).await) {
                (VersionRef::Number(_), found) => return found.map(|row| row.version),
                (VersionRef::Latest, Ok(row)) if !row.version.published => return Ok(row.version),
                (VersionRef::Latest, Ok(_) | Err(StoreError::NotFound(_))) => {}
                (VersionRef::Latest, Err(error)) => return Err(error),
            }
        }
        self.ensure_draft(scope, agent).await
    }

    /// One version by number, or the newest that there is: asking makes none.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown agent or number.
    pub async fn existing_version(
        &self,
        scope: &ScopedTo<OrganisationId>,
        agent: AgentId,
        which: VersionRef,
    ) -> Result<AgentVersion, StoreError> {
        let mut tx = self.0.db.read().await?;
        self.load_agent(&mut tx, scope, agent).await?;
        load(&mut tx, agent, which).await.map(|row| row.version)
    }

    /// The version with this id, of any of the organisation's agents.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown version.
    pub async fn version_with_id(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: AgentVersionId,
    ) -> Result<AgentVersion, StoreError> {
        let mut tx = self.0.db.read().await?;
        let row = sql::query(
            "SELECT v.* FROM agent_versions v JOIN agents a ON a.id = v.agent_id
             WHERE v.id = ? AND a.organization_id = ?",
        )
        .bind(id.to_string())
        .bind(scope.organisation().to_string())
        .fetch_optional(&mut tx)
        .await?;
        let row = row.as_ref().map(from_row).transpose()?;
        row.map(|row| row.version).ok_or_else(|| StoreError::not_found("Version"))
    }

    /// The versions of an agent, newest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown agent.
    pub async fn versions(
        &self,
        scope: &ScopedTo<OrganisationId>,
        agent: AgentId,
        filter: &VersionFilter,
        page: Page,
    ) -> Result<Vec<AgentVersion>, StoreError> {
        let mut tx = self.0.db.read().await?;
        self.load_agent(&mut tx, scope, agent).await?;
        list(&mut tx, agent, filter, page).await
    }

    /// Changes a draft. Other builder inputs make the instructions dirty; other instructions count
    /// as edited by hand.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] once it is published;
    /// [`StoreError::Conflict`] while its instructions are being generated;
    /// [`StoreError::Invalid`] for a config that is not acceptable.
    pub async fn update_version(
        &self,
        scope: &ScopedTo<OrganisationId>,
        agent: AgentId,
        which: VersionRef,
        change: VersionChange,
    ) -> Result<AgentVersion, StoreError> {
        change.validate()?;
        let mut tx = self.0.db.write().await?;
        self.load_agent(&mut tx, scope, agent).await?;
        let mut row = load(&mut tx, agent, which).await?;
        refuse_published(&row.version)?;
        refuse_generating(&row.version)?;
        let note = Change::of(scope, "version.update").object(row.version.id);
        let note = note.before(&row.version)?;
        if let Some(config) = change.config {
            let before = row.version.config.get("instructions").cloned();
            self.set_config(&mut row, config)?;
            if row.version.config.get("instructions") != before.as_ref() {
                row.version.instructions_manually_edited = true;
                row.version.instructions_source = None;
            }
        }
        if let Some(inputs) = change.instruction_builder_inputs {
            set_inputs(&mut row.version, inputs);
        }
        row.version.updated_at = self.now();
        update(&mut tx, &row).await?;
        tx.note(note.after(&row.version)?);
        self.commit(tx, After::default()).await?;
        Ok(row.version)
    }

    pub(super) async fn reseal_tokens(&self, tx: &mut Connection) -> Result<usize, StoreError> {
        let sql = "SELECT * FROM agent_versions WHERE runtime_token IS NOT NULL";
        let mut sealed = 0;
        for row in sql::query(sql).fetch_all(&mut *tx).await? {
            let mut row = from_row(&row)?;
            sealed += self.reseal_one(&token_owner(row.version.agent_id), row.token.as_mut())?;
            update(tx, &row).await?;
        }
        Ok(sealed)
    }

    /// What is to become a draft, from a config or as a copy; not written yet.
    pub(super) async fn prepare_version(
        &self,
        tx: &mut Connection,
        scope: &ScopedTo<OrganisationId>,
        agent: AgentId,
        new: NewVersion,
    ) -> Result<Row, StoreError> {
        self.load_agent(tx, scope, agent).await?;
        let mut row = match new.base_version {
            Some(base) => load(tx, agent, VersionRef::Number(base)).await?,
            None => {
                let newest = newest(tx, agent).await?;
                let mut row = blank(agent);
                if let Some(newest) = newest {
                    (row.version.config, row.token) = (newest.version.config, newest.token);
                }
                self.set_config(&mut row, new.config.unwrap_or_default())?;
                row
            }
        };
        if new.instruction_builder_inputs.is_some() {
            set_inputs(&mut row.version, new.instruction_builder_inputs);
        }
        Ok(row)
    }

    /// Under the write lock, so that of many who ask at once one makes the draft and all get it.
    async fn ensure_draft(
        &self,
        scope: &ScopedTo<OrganisationId>,
        agent: AgentId,
    ) -> Result<AgentVersion, StoreError> {
        let mut tx = self.0.db.write().await?;
        self.load_agent(&mut tx, scope, agent).await?;
        let mut row = match newest(&mut tx, agent).await? {
            Some(row) if !row.version.published => return Ok(row.version),
            Some(row) => row,
            None => blank(agent),
        };
        self.insert_draft(&mut tx, &mut row).await?;
        tx.note(Change::of(scope, "version.create").object(row.version.id).after(&row.version)?);
        self.commit(tx, After::default()).await?;
        Ok(row.version)
    }

    /// Makes the row a new draft of its agent, with the next number, and writes it.
    pub(super) async fn insert_draft(
        &self,
        tx: &mut Connection,
        row: &mut Row,
    ) -> Result<(), StoreError> {
        let agent = row.version.agent_id.to_string();
        let sql = "UPDATE agents SET next_version = next_version + 1 WHERE id = ?
                   RETURNING next_version - 1";
        let number: u32 = sql::query(sql).bind(&agent).fetch_scalar(tx).await?;
        let at = free_stamp(tx, FREE_STAMP, self.now()).await?;
        let version = &mut row.version;
        version.id = AgentVersionId::random();
        version.version = number;
        version.published = false;
        version.instructions_status = InstructionsStatus::Idle;
        (version.created_at, version.updated_at) = (at, at);
        sql::query(
            "INSERT INTO agent_versions (id, agent_id, version, config, created_at, updated_at)
             VALUES (?, ?, ?, '{}', ?, ?)",
        )
        .bind(version.id.to_string())
        .bind(agent)
        .bind(number)
        .bind(at.micros())
        .bind(at.micros())
        .execute(&mut *tx)
        .await?;
        update(tx, row).await
    }

    /// Puts a config into a row, its token apart.
    fn set_config(&self, row: &mut Row, mut config: Value) -> Result<(), StoreError> {
        let kept = (&row.version.config, row.token.take());
        row.token = self.seal_token(&token_owner(row.version.agent_id), &mut config, kept)?;
        row.version.config = config;
        Ok(())
    }

    /// Takes the token of a runtime out of the config that has it and seals it for `owner`; without one
    /// it is the one that was kept beside the config before, if it belongs to the same place.
    pub(super) fn seal_token(
        &self,
        owner: &str,
        config: &mut Value,
        (before, kept): (&Value, Option<Vec<u8>>),
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let same_place = Runtime::same_place(config, before);
        let token = match Runtime::take_token(config) {
            Some(token) if token.expose().is_empty() => None,
            Some(token) => Some(self.0.options.sealer.seal(owner, token.expose())?),
            None => kept.filter(|_| same_place),
        };
        if token.is_none() && config.pointer("/runtime/auth_username").is_some_and(is_text) {
            let message = "must be given with auth_username";
            return Err(Invalid::new("config.runtime.auth_password", message).into());
        }
        Ok(token)
    }
}

fn is_text(value: &Value) -> bool {
    value.is_string()
}

pub(super) fn refuse_published(version: &AgentVersion) -> Result<(), StoreError> {
    if version.published {
        return Err(StoreError::refused("Version is published and cannot be changed"));
    }
    Ok(())
}

fn set_inputs(version: &mut AgentVersion, inputs: Option<Value>) {
    if version.instruction_builder_inputs != inputs {
        version.instructions_dirty = inputs.is_some();
        version.instruction_builder_inputs = inputs;
    }
}

/// What an agent starts from when nobody says anything.
fn blank(agent: AgentId) -> Row {
    let version = AgentVersion {
        id: AgentVersionId::random(),
        agent_id: agent,
        version: 0,
        published: false,
        config: serde_json::json!({"instructions": ""}),
        instruction_builder_inputs: None,
        instructions_status: InstructionsStatus::Idle,
        instructions_dirty: false,
        instructions_manually_edited: false,
        instructions_source: None,
        created_at: crate::clock::Timestamp::default(),
        updated_at: crate::clock::Timestamp::default(),
    };
    Row { version, token: None }
}

pub(super) async fn list(
    tx: &mut Connection,
    agent: AgentId,
    filter: &VersionFilter,
    page: Page,
) -> Result<Vec<AgentVersion>, StoreError> {
    let mut query = QueryBuilder::new("SELECT t.* FROM agent_versions t WHERE t.agent_id = ");
    query.push_bind(agent.to_string());
    and(&mut query, "t.version =", filter.version);
    and(&mut query, "t.published =", filter.published);
    and_period(&mut query, &filter.period);
    paged(&mut query, page);
    let rows = query.build().fetch_all(tx).await?;
    rows.iter().map(|row| from_row(row).map(|row| row.version)).collect()
}

/// The version of this number, or the newest; the agent has been checked to be the organisation's.
pub(super) async fn load(
    tx: &mut Connection,
    agent: AgentId,
    which: VersionRef,
) -> Result<Row, StoreError> {
    let found = match which {
        VersionRef::Latest => newest(tx, agent).await?,
        VersionRef::Number(number) => {
            sql::query("SELECT * FROM agent_versions WHERE agent_id = ? AND version = ?")
                .bind(agent.to_string())
                .bind(number)
                .fetch_optional(tx)
                .await?
                .as_ref()
                .map(from_row)
                .transpose()?
        }
    };
    found.ok_or_else(|| StoreError::not_found("Version"))
}

async fn newest(tx: &mut Connection, agent: AgentId) -> Result<Option<Row>, StoreError> {
    let sql = "SELECT * FROM agent_versions WHERE agent_id = ? ORDER BY version DESC LIMIT 1";
    let row = sql::query(sql).bind(agent.to_string()).fetch_optional(tx).await?;
    row.as_ref().map(from_row).transpose()
}

pub(super) async fn update(tx: &mut Connection, row: &Row) -> Result<(), StoreError> {
    let version = &row.version;
    sql::query(
        "UPDATE agent_versions SET published = ?, config = ?, runtime_token = ?,
             instruction_builder_inputs = ?, instructions_status = ?, instructions_dirty = ?,
             instructions_manually_edited = ?, instructions_source = ?, updated_at = ?
         WHERE id = ?",
    )
    .bind(version.published)
    .bind(to_json(&version.config)?)
    .bind(row.token.as_deref())
    .bind(to_json_opt(version.instruction_builder_inputs.as_ref())?)
    .bind(to_word(version.instructions_status)?)
    .bind(version.instructions_dirty)
    .bind(version.instructions_manually_edited)
    .bind(version.instructions_source.map(to_word).transpose()?)
    .bind(version.updated_at.micros())
    .bind(version.id.to_string())
    .execute(&mut *tx)
    .await?;
    Ok(())
}

fn from_row(row: &sql::Row) -> Result<Row, StoreError> {
    let version = AgentVersion {
        id: parsed(row, "id")?,
        agent_id: parsed(row, "agent_id")?,
        version: small(row, "version")?,
        published: raw(row, "published")?,
        config: json(row, "config")?,
        instruction_builder_inputs: json_opt(row, "instruction_builder_inputs")?,
        instructions_status: word(row, "instructions_status")?,
        instructions_dirty: raw(row, "instructions_dirty")?,
        instructions_manually_edited: raw(row, "instructions_manually_edited")?,
        instructions_source: word_opt(row, "instructions_source")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    };
    Ok(Row { version, token: raw(row, "runtime_token")? })
}

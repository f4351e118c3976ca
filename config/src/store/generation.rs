//! Verbs on the writing of instructions: begun by a request, done by a job.

use serde_json::Value;

use super::sql;
use super::versions::{self, refuse_published};
use super::{After, Change, Store, StoreError};
use crate::credential::ScopedTo;
use crate::ids::{AgentId, OrganisationId};
use crate::jobs::{self, GENERATE_INSTRUCTIONS, Lease, Written};
use crate::model::{Agent, AgentVersion, InstructionsStatus, NewAgent, NewVersion, VersionRef};

impl Store {
    /// Marks a draft's instructions as being generated, and makes the job that does it: both or
    /// neither.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] for a published version or one without
    /// inputs; [`StoreError::Conflict`] while they are being generated already.
    pub async fn begin_generation(
        &self,
        scope: &ScopedTo<OrganisationId>,
        agent: AgentId,
        which: VersionRef,
    ) -> Result<AgentVersion, StoreError> {
        let mut tx = self.0.db.write().await?;
        self.load_agent(&mut tx, scope, agent).await?;
        let mut row = versions::load(&mut tx, agent, which).await?;
        let version = &mut row.version;
        refuse_published(version)?;
        refuse_generating(version)?;
        if version.instruction_builder_inputs.is_none() {
            return Err(StoreError::refused("Version has no instruction_builder_inputs"));
        }
        let note = Change::of(scope, "version.generate").object(version.id).before(version)?;
        version.instructions_status = InstructionsStatus::Generating;
        version.updated_at = self.now();
        let job = jobs::generation(agent, version.version, version.id);
        versions::update(&mut tx, &row).await?;
        self.insert_job(&mut tx, scope, &job).await?;
        tx.note(note.after(&row.version)?);
        self.commit(tx, After::job_added()).await?;
        Ok(row.version)
    }

    /// Ends a generation: with the new instructions, or with `None` if it failed.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Conflict`] when none was going on.
    pub async fn finish_generation(
        &self,
        scope: &ScopedTo<OrganisationId>,
        agent: AgentId,
        which: VersionRef,
        written: Option<Written>,
    ) -> Result<AgentVersion, StoreError> {
        let mut tx = self.0.db.write().await?;
        self.load_agent(&mut tx, scope, agent).await?;
        let mut row = versions::load(&mut tx, agent, which).await?;
        if row.version.instructions_status != InstructionsStatus::Generating {
            let why = "Instructions are not being generated".to_owned();
            return Err(StoreError::Conflict(why));
        }
        let note = Change::of(scope, "version.generated").object(row.version.id);
        let note = note.before(&row.version)?;
        row.version.instructions_status = match written {
            Some(written) => {
                put_instructions(&mut row.version, written);
                InstructionsStatus::Idle
            }
            None => InstructionsStatus::Failed,
        };
        row.version.updated_at = self.now();
        versions::update(&mut tx, &row).await?;
        tx.note(note.after(&row.version)?);
        self.commit(tx, After::default()).await?;
        Ok(row.version)
    }

    /// At the start: what is being generated without a job that would ever end it has failed.
    pub(super) async fn fail_left_generations(&self) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        sql::query(
            "UPDATE agent_versions SET instructions_status = 'failed'
             WHERE instructions_status = 'generating' AND id NOT IN
                 (SELECT subject FROM jobs WHERE kind = ? AND subject IS NOT NULL
                      AND status IN ('waiting', 'running'))",
        )
        .bind(GENERATE_INSTRUCTIONS)
        .execute(&mut tx)
        .await?;
        self.commit(tx, After::default()).await
    }

    /// Makes an agent with an id that was given to it before, unless it is there.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a field that is not acceptable; [`StoreError::Fault`] when the id
    /// is another organisation's.
    pub(crate) async fn ensure_agent(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: AgentId,
        new: NewAgent,
    ) -> Result<Agent, StoreError> {
        match self.agent(scope, id).await {
            Err(StoreError::NotFound(_)) => self.create_agent_with_id(scope, id, new).await,
            found => found,
        }
    }

    /// The config of an agent's newest version, if it has one.
    ///
    /// # Errors
    /// As the database fails.
    pub(crate) async fn newest_config(
        &self,
        scope: &ScopedTo<OrganisationId>,
        agent: AgentId,
    ) -> Result<Option<Value>, StoreError> {
        match self.existing_version(scope, agent, VersionRef::Latest).await {
            Ok(version) => Ok(Some(version.config)),
            Err(StoreError::NotFound(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a draft with instructions that were written for it, together with the progress of the job
    /// that wrote them, which is told the draft's number. Says whether the job's lease still held;
    /// otherwise nothing is made.
    ///
    /// # Errors
    /// As [`Store::create_version`].
    pub(crate) async fn create_written_version(
        &self,
        scope: &ScopedTo<OrganisationId>,
        agent: AgentId,
        (new, written): (NewVersion, Written),
        (lease, progress): (&Lease, impl FnOnce(u32) -> Value + Send),
    ) -> Result<bool, StoreError> {
        new.validate()?;
        let mut tx = self.0.db.write().await?;
        let mut row = self.prepare_version(&mut tx, scope, agent, new).await?;
        put_instructions(&mut row.version, written);
        self.insert_draft(&mut tx, &mut row).await?;
        if !self.write_progress(&mut tx, lease, &progress(row.version.version)).await? {
            return Ok(false);
        }
        self.commit(tx, After::default()).await?;
        Ok(true)
    }
}

/// While a job writes the instructions, nobody else writes the version.
pub(super) fn refuse_generating(version: &AgentVersion) -> Result<(), StoreError> {
    if version.instructions_status == InstructionsStatus::Generating {
        let why = "Instructions are being generated".to_owned();
        return Err(StoreError::Conflict(why));
    }
    Ok(())
}

fn put_instructions(version: &mut AgentVersion, written: Written) {
    if let Some(config) = version.config.as_object_mut() {
        config.insert("instructions".to_owned(), written.text.into());
    }
    version.instructions_source = Some(written.source);
    version.instructions_dirty = false;
    version.instructions_manually_edited = false;
}

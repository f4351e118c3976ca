//! Verbs on workflows and their versions.
//!
//! Definitions come in checked; here they are only kept. A published version never changes.

use std::sync::Arc;

use super::routes::Touched;
use super::rows::{
    and, and_holds, and_period, free_stamp, free_stamp_in, json, paged, parsed, raw, small, time,
    to_json,
};
use super::sql::{self, Connection, QueryBuilder, Row};
use super::{After, Change, Store, StoreError, executions};
use crate::credential::ScopedTo;
use crate::ids::{OrganisationId, WorkflowId};
use crate::limits::{WORKFLOW_VERSIONS, WORKFLOWS};
use crate::model::{
    Invalid, NewWorkflow, NewWorkflowVersion, Page, VersionFilter, VersionRef, Workflow,
    WorkflowChange, WorkflowFilter, WorkflowVersion, WorkflowVersionSummary,
};
use crate::workflows::Definition;

const FREE_STAMP: &str = free_stamp_in!("workflows");
const FREE_VERSION_STAMP: &str = free_stamp_in!("workflow_versions");

/// A workflow with the number of its newest published version; to be followed by a condition on `t`.
const SELECT: &str = "SELECT t.*, (SELECT max(v.version) FROM workflow_versions v
    WHERE v.workflow_id = t.id AND v.published = TRUE) AS latest_published FROM workflows t
    WHERE t.organization_id = ";

impl Store {
    /// Makes a workflow with its first draft.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a field that is not acceptable; [`StoreError::Refused`] when the
    /// organisation has as many as it may.
    pub async fn create_workflow(
        &self,
        scope: &ScopedTo<OrganisationId>,
        new: NewWorkflow,
    ) -> Result<Workflow, StoreError> {
        new.validate()?;
        let mut tx = self.0.db.write().await?;
        let held = sql::query("SELECT count(*) FROM workflows WHERE organization_id = ?");
        let held: i64 = held.bind(scope.organisation().to_string()).fetch_scalar(&mut tx).await?;
        if held >= i64::from(WORKFLOWS.value_u32()) {
            return Err(StoreError::refused("Organization has as many workflows as it may"));
        }
        let id = WorkflowId::random();
        let at = free_stamp(&mut tx, FREE_STAMP, self.now()).await?;
        sql::query(
            "INSERT INTO workflows (id, organization_id, name, name_folded, description,
                 created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(scope.organisation().to_string())
        .bind(&new.name)
        .bind(new.name.to_lowercase())
        .bind(&new.description)
        .bind(at.micros())
        .bind(at.micros())
        .execute(&mut tx)
        .await?;
        self.insert_workflow_draft(&mut tx, id, to_json(&new.definition)?).await?;
        let workflow = load(&mut tx, scope, id).await?;
        tx.note(Change::of(scope, "workflow.create").object(id).after(&workflow)?);
        self.commit(tx, After::default()).await?;
        Ok(workflow)
    }

    /// One workflow.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such workflow.
    pub async fn workflow(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WorkflowId,
    ) -> Result<Workflow, StoreError> {
        let mut tx = self.0.db.read().await?;
        load(&mut tx, scope, id).await
    }

    /// The organisation's workflows, newest first.
    ///
    /// # Errors
    /// As the database fails.
    pub async fn workflows(
        &self,
        scope: &ScopedTo<OrganisationId>,
        filter: &WorkflowFilter,
        page: Page,
    ) -> Result<Vec<Workflow>, StoreError> {
        let mut query = QueryBuilder::new(SELECT);
        query.push_bind(scope.organisation().to_string());
        and_holds(&mut query, "t.name_folded", filter.name.as_ref());
        and_period(&mut query, &filter.period);
        paged(&mut query, page);
        let mut tx = self.0.db.read().await?;
        query.build().fetch_all(&mut tx).await?.iter().map(from_row).collect()
    }

    /// Changes a workflow's name or description.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Invalid`] for a field that is not acceptable.
    pub async fn update_workflow(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WorkflowId,
        change: WorkflowChange,
    ) -> Result<Workflow, StoreError> {
        change.validate()?;
        let mut tx = self.0.db.write().await?;
        let mut workflow = load(&mut tx, scope, id).await?;
        let note = Change::of(scope, "workflow.update").object(id).before(&workflow)?;
        workflow.name = change.name.unwrap_or(workflow.name);
        workflow.description = change.description.unwrap_or(workflow.description);
        workflow.updated_at = self.now();
        sql::query(
            "UPDATE workflows SET name = ?, name_folded = ?, description = ?, updated_at = ?
             WHERE id = ?",
        )
        .bind(&workflow.name)
        .bind(workflow.name.to_lowercase())
        .bind(&workflow.description)
        .bind(workflow.updated_at.micros())
        .bind(id.to_string())
        .execute(&mut tx)
        .await?;
        tx.note(note.after(&workflow)?);
        self.commit(tx, After::default()).await?;
        Ok(workflow)
    }

    /// Deletes a workflow with its versions. Records of its runs stay, and those that wait end; where an
    /// agent names it there is nothing to run from then on.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the organisation has no such workflow.
    pub async fn delete_workflow(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WorkflowId,
    ) -> Result<(), StoreError> {
        let mut tx = self.0.db.write().await?;
        load(&mut tx, scope, id).await?;
        sql::query("DELETE FROM workflows WHERE id = ?")
            .bind(id.to_string())
            .execute(&mut tx)
            .await?;
        tx.note(Change::of(scope, "workflow.delete").object(id));
        let woken = executions::wake_runs_of(&mut tx, (scope, id), self.now()).await?;
        self.commit(tx, After { job_added: woken, ..After::routes(Touched::workflow(id)) }).await
    }

    /// Makes a draft, from a definition or as a copy.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown workflow or base; [`StoreError::Refused`] when it has
    /// as many versions as it may; [`StoreError::Invalid`] unless exactly one of the two is given.
    pub async fn create_workflow_version(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WorkflowId,
        new: NewWorkflowVersion,
    ) -> Result<WorkflowVersion, StoreError> {
        let mut tx = self.0.db.write().await?;
        let workflow = load(&mut tx, scope, id).await?;
        if u64::from(workflow.latest_version) >= WORKFLOW_VERSIONS.value {
            return Err(StoreError::refused("Workflow has as many versions as it may"));
        }
        let definition = match (new.definition, new.base_version) {
            (Some(definition), None) => definition,
            (None, Some(base)) => {
                load_version(&mut tx, id, VersionRef::Number(base)).await?.definition
            }
            _ => {
                let why = "give exactly one of definition and base_version";
                return Err(Invalid::new("definition", why).into());
            }
        };
        let version = self.insert_workflow_draft(&mut tx, id, to_json(&definition)?).await?;
        let version = load_version(&mut tx, id, VersionRef::Number(version)).await?;
        tx.note(Change::of(scope, "workflow.create_version").object(id).after(&version)?);
        self.commit(tx, After::default()).await?;
        Ok(version)
    }

    /// One version, by number or the newest.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown workflow or number.
    pub async fn workflow_version(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WorkflowId,
        which: VersionRef,
    ) -> Result<WorkflowVersion, StoreError> {
        let mut tx = self.0.db.read().await?;
        load(&mut tx, scope, id).await?;
        load_version(&mut tx, id, which).await
    }

    /// The versions of a workflow, newest first.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown workflow.
    pub async fn workflow_versions(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WorkflowId,
        filter: &VersionFilter,
        page: Page,
    ) -> Result<Vec<WorkflowVersionSummary>, StoreError> {
        let mut tx = self.0.db.read().await?;
        load(&mut tx, scope, id).await?;
        let mut query = QueryBuilder::new(
            "SELECT t.workflow_id, t.version, t.published, t.created_at, t.updated_at
             FROM workflow_versions t WHERE t.workflow_id = ",
        );
        query.push_bind(id.to_string());
        and(&mut query, "t.version =", filter.version);
        and(&mut query, "t.published =", filter.published);
        and_period(&mut query, &filter.period);
        paged(&mut query, page);
        query.build().fetch_all(&mut tx).await?.iter().map(summary_from_row).collect()
    }

    /// Gives a draft another definition.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Refused`] once it is published.
    pub async fn update_workflow_version(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WorkflowId,
        (which, definition): (VersionRef, serde_json::Value),
    ) -> Result<WorkflowVersion, StoreError> {
        let mut tx = self.0.db.write().await?;
        load(&mut tx, scope, id).await?;
        let mut version = load_version(&mut tx, id, which).await?;
        if version.published {
            return Err(StoreError::refused("Version is published and cannot change"));
        }
        let note = Change::of(scope, "workflow.update_version").object(id).before(&version)?;
        (version.definition, version.updated_at) = (definition, self.now());
        write_version(&mut tx, &version).await?;
        tx.note(note.after(&version)?);
        self.commit(tx, After::default()).await?;
        Ok(version)
    }

    /// Publishes a version, for good; twice is once.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown workflow or number.
    pub async fn publish_workflow_version(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WorkflowId,
        which: VersionRef,
    ) -> Result<WorkflowVersion, StoreError> {
        let mut tx = self.0.db.write().await?;
        load(&mut tx, scope, id).await?;
        let mut version = load_version(&mut tx, id, which).await?;
        let note = Change::of(scope, "workflow.publish").object(id).before(&version)?;
        let mut after = After::default();
        if !version.published {
            (version.published, version.updated_at) = (true, self.now());
            write_version(&mut tx, &version).await?;
            after = After::routes(Touched::workflow(id));
        }
        tx.note(note.after(&version)?);
        self.commit(tx, after).await?;
        Ok(version)
    }

    /// What a run needs: the definition of a published version, by number or the newest, and its
    /// number.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown workflow or number; [`StoreError::Refused`] for a draft,
    /// or when nothing is published.
    pub async fn workflow_definition(
        &self,
        scope: &ScopedTo<OrganisationId>,
        id: WorkflowId,
        which: VersionRef,
    ) -> Result<(u32, Arc<Definition>), StoreError> {
        let mut tx = self.0.db.read().await?;
        definition(&mut tx, scope, id, which).await
    }

    async fn insert_workflow_draft(
        &self,
        tx: &mut Connection,
        id: WorkflowId,
        definition: String,
    ) -> Result<u32, StoreError> {
        let at = free_stamp(tx, FREE_VERSION_STAMP, self.now()).await?;
        let version: u32 = sql::query(
            "UPDATE workflows SET next_version = next_version + 1, updated_at = ? WHERE id = ?
             RETURNING next_version - 1",
        )
        .bind(at.micros())
        .bind(id.to_string())
        .fetch_scalar(tx)
        .await?;
        sql::query(
            "INSERT INTO workflow_versions (workflow_id, version, definition, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(version)
        .bind(definition)
        .bind(at.micros())
        .bind(at.micros())
        .execute(tx)
        .await?;
        Ok(version)
    }
}

/// The newest published version of a workflow, if it is the organisation's and has one.
pub(super) async fn latest_published(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
    id: WorkflowId,
) -> Result<Option<u32>, StoreError> {
    match load(tx, scope, id).await {
        Ok(workflow) => Ok(workflow.latest_published_version),
        Err(StoreError::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// As [`Store::workflow_definition`], within a transaction.
pub(super) async fn definition(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
    id: WorkflowId,
    which: VersionRef,
) -> Result<(u32, Arc<Definition>), StoreError> {
    let workflow = load(tx, scope, id).await?;
    let number = match which {
        VersionRef::Number(number) => number,
        VersionRef::Latest => workflow
            .latest_published_version
            .ok_or_else(|| StoreError::refused("Workflow has no published version"))?,
    };
    let version = load_version(tx, id, VersionRef::Number(number)).await?;
    if !version.published {
        return Err(StoreError::refused("Version is a draft: publish it to run it"));
    }
    let parsed = Definition::parse(&version.definition).map_err(|faults| {
        let fault = faults.first().map(ToString::to_string);
        tracing::error!(workflow = %id, number, ?fault, "a stored definition does not read");
        StoreError::refused("Version was written for another release and does not read")
    })?;
    Ok((number, parsed.definition))
}

async fn load(
    tx: &mut Connection,
    scope: &ScopedTo<OrganisationId>,
    id: WorkflowId,
) -> Result<Workflow, StoreError> {
    let mut query = QueryBuilder::new(SELECT);
    query.push_bind(scope.organisation().to_string());
    query.push(" AND t.id = ").push_bind(id.to_string());
    let row = query.build().fetch_optional(tx).await?;
    row.as_ref().map(from_row).ok_or_else(|| StoreError::not_found("Workflow"))?
}

async fn load_version(
    tx: &mut Connection,
    id: WorkflowId,
    which: VersionRef,
) -> Result<WorkflowVersion, StoreError> {
    let mut query = QueryBuilder::new("SELECT t.* FROM workflow_versions t WHERE t.workflow_id = ");
    query.push_bind(id.to_string());
    if let VersionRef::Number(number) = which {
        query.push(" AND t.version = ").push_bind(number);
    }
    query.push(" ORDER BY t.version DESC LIMIT 1");
    let row = query.build().fetch_optional(tx).await?;
    row.as_ref().map(version_from_row).ok_or_else(|| StoreError::not_found("Version"))?
}

async fn write_version(tx: &mut Connection, version: &WorkflowVersion) -> Result<(), StoreError> {
    sql::query(
        "UPDATE workflow_versions SET published = ?, definition = ?, updated_at = ?
         WHERE workflow_id = ? AND version = ?",
    )
    .bind(version.published)
    .bind(to_json(&version.definition)?)
    .bind(version.updated_at.micros())
    .bind(version.workflow_id.to_string())
    .bind(version.version)
    .execute(tx)
    .await?;
    Ok(())
}

fn from_row(row: &Row) -> Result<Workflow, StoreError> {
    Ok(Workflow {
        id: parsed(row, "id")?,
        organization_id: parsed(row, "organization_id")?,
        name: raw(row, "name")?,
        description: raw(row, "description")?,
        latest_version: small(row, "next_version")?.saturating_sub(1),
        latest_published_version: raw(row, "latest_published")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn summary_from_row(row: &Row) -> Result<WorkflowVersionSummary, StoreError> {
    Ok(WorkflowVersionSummary {
        workflow_id: parsed(row, "workflow_id")?,
        version: small(row, "version")?,
        published: raw(row, "published")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn version_from_row(row: &Row) -> Result<WorkflowVersion, StoreError> {
    Ok(WorkflowVersion {
        workflow_id: parsed(row, "workflow_id")?,
        version: small(row, "version")?,
        published: raw(row, "published")?,
        definition: json(row, "definition")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

//! Stored workflows in the places where agents name them.
//!
//! A call waits for no database, so what an agent names lies in the snapshot beside its version: the
//! definition itself, as it is published now. Nothing else of what is stored does.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::sql::Connection;
use super::{Store, StoreError, workflows};
use crate::briefing::{AgentWorkflows, StoredWorkflow};
use crate::credential::ScopedTo;
use crate::ids::OrganisationId;
use crate::model::VersionRef;
use crate::workflows::Definition;

type Key = (OrganisationId, String, Option<u32>);

/// What was found within one transaction: what many agents name is read once and kept once.
#[derive(Default)]
pub(super) struct Found(HashMap<Key, Result<Arc<Definition>, String>>);

impl Found {
    /// Puts the workflows of an organisation where its agent names them, or why they cannot be run.
    pub(super) async fn put_into(
        &mut self,
        tx: &mut Connection,
        organisation: OrganisationId,
        workflows: &mut AgentWorkflows,
    ) -> Result<(), StoreError> {
        let Some(stored) = workflows.stored_mut() else { return Ok(()) };
        let key = (organisation, stored.id.clone(), stored.version);
        stored.definition = match self.0.entry(key) {
            Entry::Occupied(found) => found.get().clone(),
            Entry::Vacant(place) => place.insert(find(tx, organisation, stored).await?).clone(),
        };
        Ok(())
    }
}

impl Store {
    /// Puts the organisation's stored workflows where an agent names them, or why they cannot be run.
    ///
    /// # Errors
    /// As the database fails.
    pub(crate) async fn find_workflows(
        &self,
        scope: &ScopedTo<OrganisationId>,
        workflows: &mut AgentWorkflows,
    ) -> Result<(), StoreError> {
        if workflows.stored().is_none() {
            return Ok(());
        }
        let mut tx = self.0.db.read().await?;
        Found::default().put_into(&mut tx, scope.organisation(), workflows).await
    }
}

async fn find(
    tx: &mut Connection,
    organisation: OrganisationId,
    stored: &StoredWorkflow,
) -> Result<Result<Arc<Definition>, String>, StoreError> {
    let Ok(id) = stored.id.parse() else { return Ok(Err(stored.missing())) };
    let which = stored.version.map_or(VersionRef::Latest, VersionRef::Number);
    let scope = ScopedTo::by_gateway(organisation);
    match workflows::definition(tx, &scope, id, which).await {
        Ok((_, definition)) => Ok(Ok(definition)),
        Err(StoreError::NotFound(_)) => Ok(Err(stored.missing())),
        Err(StoreError::Refused(why)) => Ok(Err(format!("{}: {why}", stored.id))),
        Err(error) => Err(error),
    }
}
